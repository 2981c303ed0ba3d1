//! recover, row IP-9.

use super::*;

fn removal() -> Vec<(Command, Effect)> {
    vec![
        (close(), Effect::Done),
        (read_address(), present(true)),
        (delete(), Effect::Done),
        (host_route(), Effect::Done),
        (Command::FlushRouteCache, Effect::Done),
        (unprogram(), Effect::Done),
    ]
}

fn restoration() -> Vec<(Command, Effect)> {
    vec![
        (read_link(), link(LinkState::Up)),
        (read_address(), absent()),
        (probe(), no_claims()),
        (program(), Effect::Done),
        (add(), Effect::Done),
        (neighbours(), Effect::Done),
        (open(), Effect::Done),
        (announce(), Effect::Done),
        (broadcast(), somebody()),
    ]
}

#[test]
fn remove_then_restore() {
    let script = [removal(), restoration()].concat();
    let kinds = succeeds(Sequence::recover(context()), &script);
    let named = |name| kinds.iter().position(|k| *k == name).unwrap();
    assert_eq!(named("recover.remove"), 0);
    assert_eq!(named("recover.restore"), named("remove.done") + 1);
    assert_eq!(named("recover.done"), kinds.len() - 1);
    assert_eq!(named("restore.done"), kinds.len() - 2);
}

#[test]
fn a_physical_address_cannot_be_recovered() {
    let c = Context { physical: true, ..context() };
    fails(Sequence::recover(c), &[], false, "by hand");
}

#[test]
fn disabled_is_taken_off_the_network_and_stays_off() {
    let c = Context { restore_and_recover: false, ..context() };
    assert!(succeeds(Sequence::recover(c), &removal()).contains(&"restore.disabled"));
}

#[test]
fn a_failed_removal_ends_it() {
    let script = [(close(), failed("stuck"))];
    fails(Sequence::recover(context()), &script, false, "local recovery failed: cannot close the gate");
    let mut script = removal();
    script[2].1 = failed("busy");
    script[5] = (program(), Effect::Done);
    fails(Sequence::recover(context()), &script, true, "busy");
}

#[test]
fn a_failed_restoration_ends_it_undone() {
    let claimed = Effect::Claims(vec!["02:00:00:00:00:01".to_owned()]);
    let mut script = [removal(), restoration()[..2].to_vec()].concat();
    script.extend([(probe(), claimed), (close(), Effect::Done), (unprogram(), Effect::Done)]);
    fails(Sequence::recover(context()), &script, true, "02:00:00:00:00:01");
    let mut script = [removal(), restoration()].concat();
    script.last_mut().unwrap().1 = nobody();
    script.extend([(close(), Effect::Done), (delete(), Effect::Done), (unprogram(), Effect::Done)]);
    fails(Sequence::recover(context()), &script, true, "local recovery failed");
}
