use std::time::Duration;

use super::*;
use crate::{
    api::{MonitorSubnet, Status, SubnetOf},
    model::{SubnetDown, SubnetLoss},
};

const SUBNET: &str = "10.1.0.0/24";

fn monitor() -> MonitorSubnet {
    MonitorSubnet { subnet: SUBNET.parse().unwrap(), targets: None, interval: None, fall: None, rise: None }
}

async fn list(bench: &Bench) -> Vec<SubnetOf> {
    match bench.ask(Request::SubnetList).await.1 {
        Answer::Subnets(subnets) => subnets,
        other => panic!("{other:?}"),
    }
}

async fn status(bench: &Bench) -> Status {
    match bench.ask(Request::Status).await.1 {
        Answer::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn need(subnets: &str) -> Request {
    let settings = vec![("subnets".to_owned(), subnets.to_owned())];
    Request::Set { tag: tag("ip-10.0.0.9"), node: None, settings }
}

impl Bench {
    fn loses(&self, node: NodeId) {
        let down = SubnetDown { reason: "eth1: it has no carrier".into(), cause: SubnetLoss::Link };
        let down = [(SUBNET.parse().unwrap(), down)].into();
        self.store.change(&Change::ReportSubnets { node, down });
    }
}

#[tokio::test]
async fn what_is_not_given_stays_as_it_is() {
    let bench = bench();
    assert_eq!(list(&bench).await, []);
    bench.done(Request::SubnetMonitor(monitor())).await;
    let one = &list(&bench).await[0];
    assert_eq!((one.interval_ms, one.fall, one.rise, one.targets.len()), (2000, 3, 2, 0));
    let targets = Some(vec!["10.1.0.9".parse().unwrap()]);
    let interval = Some(Duration::from_millis(500));
    bench.done(Request::SubnetMonitor(MonitorSubnet { targets, interval, ..monitor() })).await;
    bench.done(Request::SubnetMonitor(MonitorSubnet { fall: Some(9), ..monitor() })).await;
    let one = &list(&bench).await[0];
    assert_eq!((one.interval_ms, one.fall, one.rise, one.targets.len()), (500, 9, 2, 1));
    // Back to the peers.
    bench.done(Request::SubnetMonitor(MonitorSubnet { targets: Some(vec![]), ..monitor() })).await;
    assert!(list(&bench).await[0].targets.is_empty());
    let wrong = MonitorSubnet { targets: Some(vec!["fd00::1".parse().unwrap()]), ..monitor() };
    let e = bench.refused(Request::SubnetMonitor(wrong)).await;
    assert_eq!(e.kind, ErrorKind::Refused);
}

#[tokio::test]
async fn a_lost_subnet_is_shown_wherever_it_matters() {
    let bench = bench();
    bench.done(Request::SubnetMonitor(monitor())).await;
    bench.done(create_on_all("10.0.0.9")).await;
    bench.done(need(SUBNET)).await;
    bench.loses(1);
    let s = status(&bench).await;
    let states: Vec<_> = s.subnets.iter().map(|s| (s.node.as_str(), s.state.as_str())).collect();
    // The others were never heard; the witness holds no addresses.
    assert_eq!(states, [("a", "down"), ("b", "unknown"), ("c", "unknown")]);
    let here = &s.resources[0].nodes[0];
    assert!(here.reason.as_ref().is_some_and(|r| r.contains(SUBNET) && r.contains("no carrier")), "{here:?}");
    let says = |s: &Status, what: &str| s.warnings.iter().any(|w| w.contains(what));
    assert!(says(&s, "is down on node a (eth1: it has no carrier): ip-10.0.0.9 cannot start there"));
    assert!(!says(&s, "on no node"));

    let order = |on: Option<&str>| Request::InService {
        tag: tag("ip-10.0.0.9"),
        on: on.map(str::to_owned),
        hold: None,
        wait: false,
    };
    let e = bench.refused(order(Some("a"))).await;
    assert!(e.kind == ErrorKind::Refused && e.message.contains(SUBNET), "{e:?}");
    bench.done(order(None)).await;
    bench.loses(2);
    bench.loses(3);
    assert!(says(&status(&bench).await, "ip-10.0.0.9 can start on no node"));
    let e = bench.refused(order(None)).await;
    assert!(e.message.contains("any node") && e.message.contains("subnets="), "{e:?}");
}

#[tokio::test]
async fn monitoring_ends_when_nothing_needs_it() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    assert!(bench.refused(need(SUBNET)).await.message.contains("not monitored"));
    let end = || Request::SubnetUnmonitor { subnet: SUBNET.parse().unwrap() };
    assert!(bench.refused(end()).await.message.contains("is not monitored"));
    bench.done(Request::SubnetMonitor(monitor())).await;
    bench.done(need(SUBNET)).await;
    assert_eq!(list(&bench).await[0].needed_by, [tag("ip-10.0.0.9")]);
    assert!(bench.refused(end()).await.message.contains("ip-10.0.0.9"));
    bench.done(need("")).await;
    bench.done(end()).await;
    assert_eq!(list(&bench).await, []);
}
