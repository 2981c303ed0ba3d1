//! The datapath (rows DP-1 to DP-8, DP-11 to DP-15): each fixture is a test, run through the
//! loaded programs; then the programs on real links between network namespaces.
#![allow(clippy::unwrap_used, reason = "a test; clippy only knows those of the standard harness")]

mod activity;
mod arp;
mod bench;
mod broadcast;
mod crashes;
mod density;
mod echo4;
mod echo6;
mod egress;
mod fixture;
mod live;
mod nd;
mod pins;
mod probe;
mod sweep;

use libtest_mimic::{Arguments, Trial};

use crate::{bench::Bench, fixture::Fixtures};

/// A test by its name.
type Named<R> = (&'static str, fn() -> R);

fn main() {
    let mut arguments = Arguments::from_args();
    // The bench is one, and the host's two processors serve the live tests better one by one.
    arguments.test_threads = Some(1);
    let ignored = !nix::unistd::geteuid().is_root();

    let mut fixtures = Fixtures::default();
    arp::fixtures(&mut fixtures);
    nd::fixtures(&mut fixtures);
    echo4::fixtures(&mut fixtures);
    echo6::fixtures(&mut fixtures);
    broadcast::fixtures(&mut fixtures);
    egress::fixtures(&mut fixtures);
    let mut trials: Vec<Trial> = fixtures
        .0
        .into_iter()
        .map(|fixture| Trial::test(fixture.name.clone(), move || Ok(fixture.run()?)))
        .collect();
    let tests: [Named<Result<(), String>>; _] = [
        ("broadcast: the rate is limited", broadcast::rate_is_limited),
        ("sweep: truncated at every byte", sweep::truncated_at_every_byte),
        ("sweep: random frames, gates open", sweep::random_open),
        ("sweep: random frames, gates closed", sweep::random_closed),
        ("activity: is counted by kind and address", activity::is_counted_by_kind_and_address),
        ("activity: starts at zero", activity::starts_at_zero),
        ("activity: goes with its address", activity::goes_with_its_address),
        ("probe: is reflected", probe::is_reflected),
        ("probe: either key is believed", probe::either_key_is_believed),
        ("probe: nothing else is believed", probe::nothing_else_is_believed),
        ("probe: replays are refused", probe::replays_are_refused),
        ("probe: the fence shuts for good", probe::the_fence_shuts_for_good),
        ("probe: silence is told once", probe::silence_is_told_once),
        ("nd: a router says that it is one", nd::a_router_says_that_it_is_one),
    ];
    trials.extend(tests.map(|(name, test)| Trial::test(name, move || Ok(test()?))));
    let live: [Named<anyhow::Result<()>>; _] = [
        ("density: one gate moves them all", density::one_gate_moves_them_all),
        ("density: they are counted, adopted and given up", density::they_are_counted_adopted_and_given_up),
        (
            "density: an address is known while pages come and go",
            density::an_address_is_known_while_pages_come_and_go,
        ),
        ("live: ordinary tools are answered", live::ordinary_tools_are_answered),
        (
            "live: a killed process goes silent at the deadline",
            live::a_killed_process_goes_silent_at_the_deadline,
        ),
        ("live: other interfaces keep silent too", live::other_interfaces_keep_silent_too),
        ("live: many askers leave no neighbour entries", live::many_askers_leave_no_neighbour_entries),
        ("live: native mode answers", live::native_mode_answers),
        ("live: vipd-load comes and goes", live::vipd_load_comes_and_goes),
        ("live: another clock is refused", live::another_clock_is_refused),
        ("pins: restarts lose no answer", pins::restarts_lose_no_answer),
        ("pins: another capacity carries all over", pins::another_capacity_carries_all_over),
        ("pins: of another version are replaced", pins::pins_of_another_version_are_replaced),
        ("pins: of lost interfaces are removed", pins::pins_of_lost_interfaces_are_removed),
        ("pins: an interface comes back under its number", pins::an_interface_comes_back_under_its_number),
        ("pins: a stranger's program is left alone", pins::a_strangers_program_is_left_alone),
        ("pins: another tool's program is refused and named", crashes::another_tools_program_is_refused),
        ("pins: a program put in our place", crashes::a_program_put_in_our_place),
        ("pins: half of them", crashes::half_of_the_pins),
        ("pins: killed while carrying over", crashes::killed_while_carrying_over),
        ("pins: killed at any moment", crashes::killed_at_any_moment),
        ("pins: have one owner", pins::pins_have_one_owner),
        ("pins: switching off frees the kernel", pins::switching_off_frees_the_kernel),
        ("pins: modes follow the configuration", pins::modes_follow_the_configuration),
        ("pins: a wrong pin-dir is explained", pins::a_wrong_pin_dir_is_explained),
    ];
    trials.extend(
        live.map(|(name, test)| Trial::test(name, move || Ok(test().map_err(|e| format!("{e:#}"))?))),
    );
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(ignored)).collect();

    let conclusion = libtest_mimic::run(&arguments, trials);
    Bench::remove_pins();
    conclusion.exit();
}
