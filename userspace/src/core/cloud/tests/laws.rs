//! What holds whatever EC2 does, and however the world is.

use proptest::{collection::vec, prelude::*, sample::select};
use vipd_ec2::{ElasticIp, RouteTable};

use super::{
    super::{Ask, CloudSequence, Verb},
    EIP, elastic, routes,
    world::{Fate, World, eip, table},
};

const TARGETS: [&str; 4] = ["eni-here", "eni-old", "igw-1", ""];

fn tables() -> impl Strategy<Value = Vec<RouteTable>> {
    let destinations = select(vec!["10.9.0.5/32", "10.9.0.6/32", "10.9.0.7/32"]);
    let routes = vec((destinations, select(TARGETS.to_vec())), 0..4);
    vec(routes, 0..5).prop_map(|tables| {
        let unique = |mut routes: Vec<(&'static str, &'static str)>| {
            routes.sort_unstable();
            routes.dedup_by_key(|(destination, _)| *destination);
            routes
        };
        let each = tables.into_iter().enumerate();
        each.map(|(n, routes)| table(&format!("rtb-{n}"), &unique(routes))).collect()
    })
}

fn eips() -> impl Strategy<Value = Vec<ElasticIp>> {
    let places = || select(vec![None, Some("eni-old"), Some("eni-here")]);
    (places(), places()).prop_map(|(ours, stranger)| {
        // An interface has one for its primary address.
        let stranger = stranger.filter(|s| ours != Some(*s));
        vec![eip(EIP, ours), eip([203, 0, 113, 9], stranger), eip([203, 0, 113, 1], Some("eni-x"))]
    })
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let one = prop_oneof![
        6 => Just(Fate::Fine),
        2 => Just(Fate::Silent),
        2 => Just(Fate::Lost),
        2 => Just(Fate::Throttled),
        2 => Just(Fate::Lie),
        1 => Just(Fate::Denied),
        1 => Just(Fate::Overtaken),
    ];
    vec(one, 0..25)
}

fn all_lead_here(world: &World, of: &[&str]) -> bool {
    let routes = world.tables.iter().flat_map(|t| &t.routes);
    let mut of = routes.filter(|r| of.contains(&r.destination.to_string().as_str()));
    of.all(|r| r.target == "eni-here")
}

/// The world without what a sequence may change.
fn rest(world: &World, of: &[&str]) -> World {
    let mut rest = world.clone();
    for table in &mut rest.tables {
        table.routes.retain(|r| !of.contains(&r.destination.to_string().as_str()));
    }
    rest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn of_routes(tables in tables(), fates in fates(), many in any::<bool>()) {
        let mut world = World::new(tables, Vec::new());
        let before = world.clone();
        let (addresses, of): (&[&str], &[&str]) = if many {
            (&["10.9.0.5", "10.9.0.6"], &["10.9.0.5/32", "10.9.0.6/32"])
        } else {
            (&["10.9.0.5"], &["10.9.0.5/32"])
        };
        for verb in [Verb::Restore, Verb::Recover, Verb::Quickcheck, Verb::Remove] {
            let earlier = world.clone();
            let run = world.run(&mut CloudSequence::new(verb, routes(addresses)), &fates, 500);
            // No other route of any table is touched, ever.
            prop_assert_eq!(rest(&world, of), rest(&before, of));
            match verb {
                Verb::Restore | Verb::Recover | Verb::Switch | Verb::Amend => {
                    prop_assert!(run.result.is_err() || all_lead_here(&world, of), "{:?}", run);
                    // In service is called what was read last.
                    let reads_back = matches!(run.asked.last(), Some(Ask::Routes { .. }));
                    prop_assert!(run.result.is_err() || reads_back, "{:?}", run);
                }
                Verb::Quickcheck | Verb::Remove => prop_assert_eq!(&world, &earlier),
            }
            prop_assert!(!run.overran, "{:?}", run);
        }
        // Once EC2 works again, so does this.
        let run = world.run(&mut CloudSequence::new(Verb::Restore, routes(addresses)), &[], 500);
        let exists = before.tables.iter().flat_map(|t| &t.routes).any(|r| of.contains(&r.destination.to_string().as_str()));
        prop_assert_eq!(run.result.is_ok(), exists);
    }

    #[test]
    fn of_elastic_ips(eips in eips(), fates in fates()) {
        let mut world = World::new(Vec::new(), eips);
        let stranger_elsewhere = world.eips[2].clone();
        let on_here = |world: &World, n: usize| {
            world.eips[n].association.as_ref().and_then(|a| a.interface.as_deref()) == Some("eni-here")
        };
        let run = world.run(&mut CloudSequence::new(Verb::Restore, elastic()), &fates, 500);
        prop_assert!(run.result.is_err() || (on_here(&world, 0) && !on_here(&world, 1)), "{:?}", run);
        prop_assert!(!run.overran, "{:?}", run);
        let earlier = world.clone();
        let check = world.run(&mut CloudSequence::new(Verb::Quickcheck, elastic()), &fates, 500);
        prop_assert_eq!(&world, &earlier);
        prop_assert!(check.asked.iter().all(|ask| !ask.writes()));
        let gone = world.run(&mut CloudSequence::new(Verb::Remove, elastic()), &fates, 500);
        prop_assert!(gone.result.is_err() || !on_here(&world, 0));
        prop_assert_eq!(&world.eips[2], &stranger_elsewhere);
        let run = world.run(&mut CloudSequence::new(Verb::Restore, elastic()), &[], 500);
        prop_assert!(run.result.is_ok() && on_here(&world, 0) && !on_here(&world, 1));
    }
}
