//! Every check, alone and together with others.

use std::{collections::BTreeSet, time::Duration};

use vipd_ec2::{Association, Route};

use super::*;

const ENI: &str = "eni-1";

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn route_wish(addresses: &[&str]) -> CloudArrival {
    let addresses = addresses.iter().map(|a| a.parse::<IpNet>().unwrap()).collect();
    CloudArrival {
        tag: tag("ec2-db"),
        devices: vec!["eth0".into()],
        region: None,
        what: CloudWish::Route { ip: tag("db"), addresses },
        nodes: 2,
    }
}

fn eip_wish() -> CloudArrival {
    let what = CloudWish::Eip { address: [203, 0, 113, 9].into() };
    CloudArrival { tag: tag("ec2-www"), what, ..route_wish(&[]) }
}

fn table(id: &str, destinations: &[&str]) -> RouteTable {
    let route =
        |d: &&str| Route { destination: d.parse().unwrap(), target: "eni-9".into(), blackhole: false };
    RouteTable { id: id.into(), routes: destinations.iter().map(route).collect() }
}

fn elastic_ip(address: &str, on: Option<&str>) -> ElasticIp {
    let association = on.map(|eni| Association {
        id: "eipassoc-1".into(),
        interface: Some(eni.into()),
        instance: None,
        private_address: None,
    });
    ElasticIp { address: address.parse().unwrap(), allocation: "eipalloc-1".into(), association }
}

/// Nothing is wrong: 172.16.0.9 and .10 have entries in two tables, the Elastic IP is nowhere.
fn facts() -> CloudFacts {
    CloudFacts {
        name: "a".into(),
        identity: Ok(Identity {
            instance: "i-1".into(),
            region: "eu-central-1".into(),
            zone: "eu-central-1a".into(),
        }),
        devices: vec![DeviceFacts {
            name: "eth0".into(),
            up: Some(true),
            nic: Some(Ok(Nic {
                id: ENI.into(),
                vpc: "vpc-1".into(),
                vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap(), "100.64.0.0/16".parse().unwrap()],
            })),
            details: Some(Ok(InterfaceDetails {
                id: ENI.into(),
                vpc: "vpc-1".into(),
                instance: Some("i-1".into()),
                source_dest_check: false,
                private_addresses: vec![],
            })),
            elastic_ips: Some(Ok(vec![])),
        }],
        tables: Some(Ok(vec![
            table("rtb-1", &["172.16.0.9/32", "172.16.0.10/32"]),
            table("rtb-2", &["172.16.0.9/32"]),
            table("rtb-3", &[]),
        ])),
        elastic_ip: Some(Ok(Some(elastic_ip("203.0.113.9", None)))),
        rights: vec![],
        broadcast: vec![],
        tunables: "/etc/default/vipd".into(),
    }
}

const BOTH: [&str; 2] = ["172.16.0.9/24", "172.16.0.10/24"];

fn route() -> CloudArrival {
    route_wish(&BOTH)
}

#[track_caller]
fn objects(arrival: &CloudArrival, facts: &CloudFacts, says: &[&str]) {
    let verdict = judge(arrival, facts);
    assert_eq!(verdict.objections.len(), 1, "{verdict:#?}");
    assert!(verdict.unchecked.is_empty(), "{verdict:#?}");
    for part in says {
        assert!(verdict.objections[0].contains(part), "'{part}' is not in: {}", verdict.objections[0]);
    }
}

#[track_caller]
fn is_unchecked(arrival: &CloudArrival, facts: &CloudFacts, says: &[&str]) {
    let verdict = judge(arrival, facts);
    assert!(verdict.objections.is_empty(), "{verdict:#?}");
    for part in says {
        assert!(verdict.unchecked.iter().any(|u| u.contains(part)), "'{part}' is not in: {verdict:#?}");
    }
}

fn with_nic(change: impl FnOnce(&mut Nic)) -> CloudFacts {
    let mut facts = facts();
    change(facts.devices[0].nic.as_mut().unwrap().as_mut().unwrap());
    facts
}

fn with_details(change: impl FnOnce(&mut InterfaceDetails)) -> CloudFacts {
    let mut facts = facts();
    change(facts.devices[0].details.as_mut().unwrap().as_mut().unwrap());
    facts
}

fn silent(what: &str) -> CallError {
    CallError::Silent { what: what.into(), within: Duration::from_secs(5) }
}

fn missing(what: &str) -> CallError {
    CallError::Missing { what: what.into(), code: "404".into(), message: "is not there".into() }
}

fn denied(action: Action) -> CallError {
    let message = format!("no. {} x9DFg", "Encoded authorization failure message:");
    CallError::Denied { action, code: "UnauthorizedOperation".into(), message }
}

#[test]
fn nothing_is_wrong() {
    for arrival in [route(), eip_wish()] {
        let verdict = judge(&arrival, &facts());
        let found = verdict.found.clone().unwrap();
        assert_eq!(CloudVerdict { found: None, ..verdict }, CloudVerdict::default());
        assert_eq!((found.vpc.as_deref(), found.region.as_deref()), (Some("vpc-1"), Some("eu-central-1")));
        assert_eq!((found.tag, found.interfaces), (arrival.tag.clone(), vec![ENI.to_owned()]));
    }
}

#[test]
fn the_region_is_the_one_asked_for() {
    let asked = |region: &str| CloudArrival { region: Some(region.into()), ..route() };
    assert!(judge(&asked("eu-central-1"), &facts()).objections.is_empty());
    let says = ["region eu-west-1 was asked for", "(i-1) is in eu-central-1", "leave the region out"];
    objects(&asked("eu-west-1"), &facts(), &says);
}

#[test]
fn the_metadata_service_answers() {
    let lost = CloudFacts { identity: Err(silent("the metadata service")), ..facts() };
    let says = [
        "the metadata service was not answered within 5s",
        "169.254.169.254",
        "aws ec2 modify-instance-metadata-options --instance-id INSTANCE --http-endpoint enabled --http-tokens required",
    ];
    is_unchecked(&route(), &lost, &says);
    let mut mute = lost;
    mute.devices[0].nic = Some(Err(silent("the interface")));
    assert_eq!(judge(&route(), &mute).unchecked.len(), 1, "told once");
    let absent = CloudFacts { identity: Err(CallError::Absent), ..facts() };
    objects(&route(), &absent, &["this vipd was built without EC2"]);
}

#[test]
fn the_interface_is_there_and_of_this_instance() {
    let mut gone = facts();
    gone.devices[0] =
        DeviceFacts { name: "eth7".into(), up: None, nic: None, details: None, elastic_ips: None };
    gone.tables = None;
    objects(&route(), &gone, &["there is no interface 'eth7' on this node", "vipctl interfaces"]);
    let mut foreign = facts();
    foreign.devices[0].nic = Some(Err(missing("02:00")));
    (foreign.devices[0].details, foreign.tables) = (None, None);
    let attach = "aws ec2 attach-network-interface --network-interface-id ENI --instance-id i-1 --device-index N \
                  --region eu-central-1";
    objects(&route(), &foreign, &["eth0 is no network interface of EC2", attach]);
    let other = with_details(|d| d.instance = Some("i-2".into()));
    objects(
        &eip_wish(),
        &other,
        &["eth0 is eni-1, which is attached to i-2", "--network-interface-id eni-1"],
    );
    let loose = with_details(|d| d.instance = None);
    objects(&route(), &loose, &["attached to no instance"]);
}

#[test]
fn the_source_dest_check_is_off_for_routes() {
    let on = with_details(|d| d.source_dest_check = true);
    let command = "'aws ec2 modify-network-interface-attribute --network-interface-id eni-1 --no-source-dest-check \
                   --region eu-central-1'";
    objects(&route(), &on, &["source/dest check of eth0 (eni-1) is on", command]);
    assert!(judge(&eip_wish(), &on).objections.is_empty());
}

#[test]
fn addresses_are_outside_of_all_blocks_of_the_vpc() {
    let inside = route_wish(&["172.16.0.9/24", "100.64.255.255/24", "100.65.0.0/24"]);
    let mut facts = facts();
    let all = ["172.16.0.9/32", "100.64.255.255/32", "100.65.0.0/32"];
    facts.tables = Some(Ok(vec![table("rtb-1", &all)]));
    objects(&inside, &facts, &["100.64.255.255 is within 100.64.0.0/16 of the VPC vpc-1", "in no block"]);
    let both = route_wish(&["10.0.0.0/24", "10.0.255.255/24"]);
    let at_ends =
        CloudFacts { tables: Some(Ok(vec![table("rtb-1", &["10.0.0.0/32", "10.0.255.255/32"])])), ..facts };
    objects(&both, &at_ends, &["10.0.0.0, 10.0.255.255 are within 10.0.0.0/16"]);
}

#[test]
fn each_address_has_an_entry_somewhere() {
    let more = route_wish(&["172.16.0.9/24", "172.16.0.11/24", "172.16.0.12/24"]);
    let says = [
        "no route table of the VPC vpc-1 has an entry for 172.16.0.11-172.16.0.12",
        "'aws ec2 create-route --route-table-id TABLE --destination-cidr-block 172.16.0.11/32 \
         --network-interface-id eni-1 --region eu-central-1'",
        "(rtb-1, rtb-2, rtb-3)",
    ];
    objects(&more, &facts(), &says);
    let one = CloudFacts { tables: Some(Ok(vec![table("rtb-7", &["172.16.0.0/24"])])), ..facts() };
    objects(&route_wish(&["172.16.0.9/24"]), &one, &["entry for 172.16.0.9,", "--route-table-id rtb-7 "]);
    let none = CloudFacts { tables: Some(Ok(vec![])), ..facts() };
    objects(&route(), &none, &["--route-table-id TABLE "]);
}

#[test]
fn an_elastic_ip_exists_and_its_interface_has_a_link() {
    let none = CloudFacts { elastic_ip: Some(Ok(None)), ..facts() };
    let says = [
        "no Elastic IP 203.0.113.9 in the region",
        "aws ec2 describe-addresses --region eu-central-1",
        "aws ec2 allocate-address",
    ];
    objects(&eip_wish(), &none, &says);
    let mut down = facts();
    down.devices[0].up = Some(false);
    objects(&eip_wish(), &down, &["eth0 has no link", "ip link set eth0 up"]);
    assert!(judge(&route(), &down).objections.is_empty(), "its IP resource sees to that");
}

#[test]
fn who_would_be_evicted_is_told() {
    let mut facts = facts();
    let on = ["203.0.113.9", "198.51.100.7"].map(|a| elastic_ip(a, Some(ENI)));
    facts.devices[0].elastic_ips = Some(Ok(on.into()));
    let verdict = judge(&eip_wish(), &facts);
    assert!(verdict.objections.is_empty(), "{verdict:#?}");
    let [warning] = &verdict.warnings[..] else { panic!("{verdict:#?}") };
    assert!(warning.starts_with("eth0 has 198.51.100.7 now, which will be taken off it"), "{warning}");
}

#[test]
fn pings_that_nobody_would_hear_answered_are_told_of() {
    let net = "172.16.0.0/24".parse().unwrap();
    let facts = CloudFacts { broadcast: vec![net], ..facts() };
    let verdict = judge(&route(), &facts);
    let [warning] = &verdict.warnings[..] else { panic!("{verdict:#?}") };
    let remedies = [
        "NOBCASTPING=1 in /etc/default/vipd of a",
        "'vipctl ping-list add 172.16.0.0/24 ADDRESS... --node a'",
    ];
    assert!(verdict.objections.is_empty() && warning.starts_with("a VPC has no broadcast"), "{verdict:#?}");
    assert!(remedies.iter().all(|part| warning.contains(part)), "{warning}");
}

/// When nothing at all is permitted.
fn deny_all(arrival: &CloudArrival, facts: &CloudFacts) -> Vec<String> {
    let tried = dry_runs(arrival, facts);
    let rights = tried.into_iter().map(|probe| (probe.clone(), Err(denied(probe.action()))));
    judge(arrival, &CloudFacts { rights: rights.collect(), ..facts.clone() }).objections
}

#[test]
fn each_missing_right_is_named_once_with_its_statement() {
    let mut facts = facts();
    facts.elastic_ip = Some(Ok(Some(elastic_ip("203.0.113.9", Some("eni-2")))));
    let statements: BTreeSet<String> = deny_all(&route(), &facts)
        .into_iter()
        .map(|o| {
            assert!(o.contains("is not permitted (UnauthorizedOperation): no.: add to the policy"), "{o}");
            o.split("role ").nth(1).unwrap().to_owned()
        })
        .collect();
    let expected = [
        r#"{"Effect":"Allow","Action":"ec2:DescribeNetworkInterfaces","Resource":"*"}"#,
        r#"{"Effect":"Allow","Action":"ec2:DescribeRouteTables","Resource":"*"}"#,
        r#"{"Effect":"Allow","Action":"ec2:ReplaceRoute","Resource":["arn:aws:ec2:eu-central-1:*:route-table/rtb-1","arn:aws:ec2:eu-central-1:*:route-table/rtb-2"]}"#,
    ];
    assert_eq!(statements, expected.map(str::to_owned).into());
    for statement in &statements {
        serde_json::from_str::<serde_json::Value>(statement).unwrap();
    }
    let all = deny_all(&eip_wish(), &facts);
    assert_eq!(all.len(), 4, "{all:#?}");
    let associate = r#"{"Effect":"Allow","Action":"ec2:AssociateAddress","Resource":["arn:aws:ec2:eu-central-1:*:elastic-ip/eipalloc-1","arn:aws:ec2:eu-central-1:*:network-interface/*"]}"#;
    for part in ["ec2:DescribeAddresses", "ec2:DisassociateAddress", associate] {
        assert!(all.iter().any(|o| o.contains(part)), "{part}: {all:#?}");
    }
}

/// An entry that is yet to be made may come into any table.
#[test]
fn a_right_to_routes_that_are_not_there_yet_is_for_all_tables() {
    let mut facts = facts();
    facts.tables = Some(Ok(vec![table("rtb-1", &["172.16.0.9/32"]), table("rtb-2", &[])]));
    let all = deny_all(&route(), &facts);
    let replace = r#""ec2:ReplaceRoute","Resource":"arn:aws:ec2:eu-central-1:*:route-table/*"}"#;
    assert!(all.iter().any(|o| o.contains(replace)), "{all:#?}");
}

/// What another region has not is not what is missing.
#[test]
fn of_another_region_only_that_is_told() {
    let mut facts = facts();
    facts.devices[0].details = Some(Err(missing("eni-1")));
    facts.tables = Some(Ok(vec![]));
    facts.elastic_ip = Some(Ok(None));
    for wish in [route(), eip_wish()] {
        let wish = CloudArrival { region: Some("us-east-1".into()), ..wish };
        objects(&wish, &facts, &["region us-east-1 was asked for", "(i-1) is in eu-central-1"]);
    }
}

/// Without it nothing else can be asked, and its remedy is the one that helps.
#[test]
fn a_silent_metadata_service_is_told_once() {
    let mut facts = facts();
    facts.identity = Err(silent("this host's identity"));
    facts.devices[0] = DeviceFacts {
        nic: Some(Err(silent("the interface"))),
        details: None,
        elastic_ips: None,
        ..facts.devices[0].clone()
    };
    (facts.tables, facts.elastic_ip) = (None, Some(Err(silent("this host's identity"))));
    let other = CallError::NoCredentials("none".into());
    facts.rights = vec![
        (DryRun::DescribeAddresses, Err(silent("this host's identity"))),
        (DryRun::DescribeNetworkInterfaces, Err(other)),
    ];
    for wish in [route(), eip_wish()] {
        let verdict = judge(&wish, &facts);
        assert!(verdict.objections.is_empty(), "{verdict:#?}");
        let [said] = &verdict.unchecked[..] else { panic!("{verdict:#?}") };
        assert!(said.contains("169.254.169.254") && said.contains("this host's identity"), "{said}");
    }
}

/// What is denied when it is really asked for, and when it is tried out, is one thing.
#[test]
fn a_denied_read_is_told_once() {
    let mut facts = facts();
    facts.devices[0].details = Some(Err(denied(Action::DescribeNetworkInterfaces)));
    facts.rights = vec![(DryRun::DescribeNetworkInterfaces, Err(denied(Action::DescribeNetworkInterfaces)))];
    objects(&route(), &facts, &["ec2:DescribeNetworkInterfaces is not permitted"]);
}

#[test]
fn arns_are_of_the_regions_partition() {
    let in_region = |region: &str| {
        let mut facts = facts();
        facts.identity.as_mut().unwrap().region = region.into();
        let probe = DryRun::ReplaceRoute {
            table: "rtb-1".into(),
            destination: "172.16.0.9/32".parse().unwrap(),
            eni: ENI.into(),
        };
        facts.rights = vec![(probe, Err(denied(Action::ReplaceRoute)))];
        judge(&route(), &facts).objections.remove(0)
    };
    assert!(in_region("cn-north-1").contains("arn:aws-cn:ec2:cn-north-1:*:route-table/rtb-1"));
    assert!(in_region("us-gov-west-1").contains("arn:aws-us-gov:ec2:us-gov-west-1:"));
}

#[test]
fn what_is_tried_out_is_what_would_be_done() {
    let replace = |table: &str, destination: &str| DryRun::ReplaceRoute {
        table: table.into(),
        destination: destination.parse().unwrap(),
        eni: ENI.into(),
    };
    let reads = [DryRun::DescribeNetworkInterfaces, DryRun::DescribeRouteTables];
    let with = |more: Vec<DryRun>| [reads.to_vec(), more].concat();
    let each = vec![replace("rtb-1", "172.16.0.9/32"), replace("rtb-2", "172.16.0.9/32")];
    assert_eq!(dry_runs(&route(), &facts()), with(each));
    let elsewhere = route_wish(&["172.16.9.9/24"]);
    assert_eq!(dry_runs(&elsewhere, &facts()), with(vec![replace("rtb-1", "172.16.9.9/32")]));
    let without = CloudFacts { tables: Some(Ok(vec![])), ..facts() };
    assert_eq!(dry_runs(&route(), &without), with(vec![]));
    let mut held = facts();
    held.elastic_ip = Some(Ok(Some(elastic_ip("203.0.113.9", Some("eni-2")))));
    let expected = [
        DryRun::DescribeNetworkInterfaces,
        DryRun::DescribeAddresses,
        DryRun::DisassociateAddress { association: Some("eipassoc-1".into()) },
        DryRun::AssociateAddress { allocation: "eipalloc-1".into(), eni: ENI.into() },
    ];
    assert_eq!(dry_runs(&eip_wish(), &held), expected);
}

#[test]
fn an_api_that_is_silent_is_not_asked_on_and_on() {
    let mut lost = facts();
    lost.devices[0].details = Some(Err(silent("DescribeNetworkInterfaces")));
    lost.devices[0].elastic_ips = None;
    lost.tables = Some(Err(silent("DescribeRouteTables")));
    lost.elastic_ip = None;
    assert_eq!(dry_runs(&route(), &lost), []);
    let says = "DescribeNetworkInterfaces was not answered within 5s, DescribeRouteTables was not answered within 5s: see \
                that the node reaches https://ec2.eu-central-1.amazonaws.com";
    is_unchecked(&route(), &lost, &[says]);
    assert_eq!(judge(&route(), &lost).unchecked.len(), 1);
    lost.tables = facts().tables;
    assert!(!dry_runs(&route(), &lost).is_empty(), "something was answered");
}

#[test]
fn what_passes_is_unchecked_and_what_does_not_is_an_objection() {
    let with = |e: CallError| CloudFacts { tables: Some(Err(e)), ..facts() };
    let text = || "x".to_owned();
    is_unchecked(
        &route(),
        &with(CallError::Throttled { what: text(), code: text() }),
        &["throttled", "minute"],
    );
    is_unchecked(&route(), &with(CallError::Unavailable { what: text(), code: text() }), &["within EC2"]);
    is_unchecked(&route(), &with(CallError::Unreachable { what: text(), reason: text() }), &["endpoint"]);
    let none = with(CallError::NoCredentials("nothing found".into()));
    let says = ["no credentials", "associate-iam-instance-profile --instance-id i-1", "docs/ec2.md", "[ec2]"];
    objects(&route(), &none, &says);
    // Whatever was asked: it is told once, and no policy is to blame.
    let unaccepted =
        |code: &str| CallError::Unaccepted { code: code.into(), message: "Request has expired.".into() };
    let mut late = with(unaccepted("RequestExpired"));
    let probes = [DryRun::DescribeRouteTables, DryRun::DescribeNetworkInterfaces];
    late.rights = probes.map(|probe| (probe, Err(unaccepted("RequestExpired")))).into();
    objects(&route(), &late, &["does not accept this node's credentials (RequestExpired)", "timedatectl"]);
    assert!(!judge(&route(), &late).objections[0].contains("policy"));
    objects(&route(), &with(unaccepted("OptInRequired")), &["the region eu-central-1 is enabled"]);
    let refused =
        CallError::Refused { what: "DescribeRouteTables".into(), code: "Bad".into(), message: text() };
    objects(&route(), &with(refused.clone()), &["DescribeRouteTables was refused (Bad)"]);
    let mut tried = facts();
    tried.rights = vec![(DryRun::DescribeRouteTables, Err(refused))];
    is_unchecked(&route(), &tried, &["whether ec2:DescribeRouteTables is permitted: "]);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let mut bad = facts();
    bad.devices[0].details.as_mut().unwrap().as_mut().unwrap().source_dest_check = true;
    bad.tables = Some(Ok(vec![table("rtb-1", &[])]));
    bad.rights = vec![(DryRun::DescribeRouteTables, Err(denied(Action::DescribeRouteTables)))];
    let arrival = route_wish(&["10.0.0.9/24"]);
    assert_eq!(judge(&arrival, &bad).objections.len(), 4);
    // What the API of another region says, or would have to permit, means nothing.
    let elsewhere = CloudArrival { region: Some("eu-west-1".into()), ..arrival };
    let objections = judge(&elsewhere, &bad).objections;
    assert_eq!(objections.len(), 2, "{objections:#?}");
    assert!(objections.iter().any(|o| o.contains("eu-west-1")), "{objections:#?}");
}

fn found(vpc: &str, interface: &str) -> CloudFound {
    let found = judge(&route(), &with_nic(|nic| nic.vpc = vpc.into())).found.unwrap();
    CloudFound { interfaces: vec![interface.into()], ..found }
}

fn compared(all: impl IntoIterator<Item = CloudFound>) -> (Vec<String>, Vec<String>) {
    let found = all.into_iter().zip(1..).map(|(found, node)| (node, vec![found])).collect();
    compare(&found, &|id| format!("n{id}"))
}

#[test]
fn nodes_are_in_one_vpc_for_routes_and_in_one_region() {
    assert_eq!(compared([found("vpc-1", "eni-1"), found("vpc-1", "eni-2")]), (vec![], vec![]));
    let (objections, _) = compared([found("vpc-1", "a"), found("vpc-2", "b"), found("vpc-1", "c")]);
    assert!(objections[0].starts_with("ec2-db: its nodes are in different VPCs (vpc-1: n1, n3; vpc-2: n2)"));
    let eip = |vpc: &str| CloudFound { is_route: false, ..found(vpc, "x") };
    assert_eq!(compared([eip("vpc-1"), eip("vpc-2")]), (vec![], vec![]));
    let west = CloudFound { region: Some("eu-west-1".into()), ..eip("vpc-1") };
    let (objections, _) = compared([eip("vpc-1"), west]);
    assert!(objections[0].contains("different regions (eu-central-1: n1; eu-west-1: n2)"), "{objections:?}");
    // Of who could not tell, nothing is known.
    let mute = CloudFound { vpc: None, region: None, ..found("vpc-9", "x") };
    assert_eq!(compared([found("vpc-1", "a"), mute]), (vec![], vec![]));
}

#[test]
fn an_elastic_ip_of_a_stranger_is_told_of_when_all_nodes_are_known() {
    let of = |interface: &str, holder: &str| CloudFound {
        is_route: false,
        holder: Some(holder.into()),
        elastic_ip: Some([203, 0, 113, 9].into()),
        ..found("vpc-1", interface)
    };
    assert_eq!(compared([of("eni-1", "eni-2"), of("eni-2", "eni-2")]), (vec![], vec![]));
    let (objections, warnings) = compared([of("eni-1", "eni-9"), of("eni-2", "eni-9")]);
    assert!(objections.is_empty());
    assert_eq!(
        warnings,
        ["ec2-db: 203.0.113.9 is on eni-9 now, which no node of it has: it will be taken from there"]
    );
    assert_eq!(compared([of("eni-1", "eni-9")]), (vec![], vec![]), "another node may have it");
}

/// The policy that operators copy allows what vipd does, and nothing else.
#[test]
fn the_policy_in_the_documents_has_exactly_the_actions() {
    let text = include_str!("../../../../../docs/ec2.md");
    let policy = text.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    let mut named = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        let actions: Vec<&str> =
            statement["Action"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        for action in &actions {
            assert!(named.insert((*action).to_owned()), "{action} is there twice");
        }
        // EC2 has no resources for what only describes.
        let describes = actions.iter().all(|a| a.starts_with("ec2:Describe"));
        assert_eq!(statement["Resource"] == "*", describes, "{actions:?}");
    }
    assert_eq!(named, Action::ALL.iter().map(ToString::to_string).collect());
}
