//! recover, row IP-9.

use super::*;

fn removal() -> Vec<(Command, Effect)> {
    let begin = vec![(close(), Effect::Done), (withdraw(), Effect::Done), (read_address(), present(true))];
    [begin, clearing(&place()), vec![(unprogram(), Effect::Done)]].concat()
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

/// Row IP-13: disabling while in service does not take the address down.
#[test]
fn disabled_stays_as_it_is() {
    let c = Context { restore_and_recover: false, ..context() };
    assert_eq!(succeeds(Sequence::recover(c), &[]), ["recover.disabled"]);
}

#[test]
fn the_source_address_is_set_back_and_set_again() {
    let c = Context { source: true, ..context() };
    let mut script = [removal(), restoration()].concat();
    script.insert(script.len() - 1, (set_source(), Effect::Done));
    let kinds = succeeds(Sequence::recover(c), &script);
    let named = |name| kinds.iter().position(|k| *k == name).unwrap();
    assert!(named("remove.source") < named("remove.address"));
    assert!(named("restore.announce") < named("restore.source"));
}

#[test]
fn a_failed_removal_ends_it() {
    let script = [(close(), failed("stuck"))];
    fails(Sequence::recover(context()), &script, false, "local recovery failed: cannot close the gate");
    let mut script = removal()[..7].to_vec();
    script[4].1 = failed("busy");
    script.extend([(read_address(), present(true)), (program(), Effect::Done)]);
    fails(Sequence::recover(context()), &script, true, "busy");
}

#[test]
fn a_failed_restoration_ends_it_undone() {
    let shut = vec![(close(), Effect::Done), (withdraw(), Effect::Done)];
    let out = vec![(unprogram(), Effect::Done)];
    let claimed = vec![(probe(), claims(&[("10.0.0.7", "02:00:00:00:00:01")]))];
    let script = [removal(), restoration()[..2].to_vec(), claimed, shut.clone(), out.clone()].concat();
    fails(Sequence::recover(context()), &script, true, "02:00:00:00:00:01");
    let mut script = [removal(), restoration()].concat();
    script.last_mut().unwrap().1 = nobody();
    script.extend([shut, clearing(&place()), out].concat());
    let failure = fails(Sequence::recover(context()), &script, true, "local recovery failed");
    assert_eq!(failure.cause, Cause::Interface);
}
