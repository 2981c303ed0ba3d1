use std::net::Ipv4Addr;

use super::{
    answers::{done, error, tables},
    call, once, scripted,
};
use crate::{Association, CallError, Ec2, ElasticIp, InterfaceDetails, Route, RouteTable};

#[tokio::test]
async fn route_tables_come_page_by_page() {
    let (sdk, fake) = scripted([
        tables(&["rtb-1", "rtb-2"], Some("second")),
        tables(&["rtb-3"], Some("third")),
        tables(&["rtb-4"], None),
    ]);
    let found = sdk.route_tables("vpc-7", &call()).await.unwrap();
    assert_eq!(
        found.iter().map(|table| table.id.as_str()).collect::<Vec<_>>(),
        ["rtb-1", "rtb-2", "rtb-3", "rtb-4"]
    );
    let asked = fake.asked();
    assert_eq!(asked.len(), 3);
    for page in &asked {
        assert!(page.has("Action", "DescribeRouteTables"), "{}", page.body);
        assert!(
            page.has("Filter.1.Name", "vpc-id") && page.has("Filter.1.Value.1", "vpc-7"),
            "{}",
            page.body
        );
        assert!(page.has("MaxResults", "100"), "{}", page.body);
        assert!(page.authorization.contains("/eu-central-1/ec2/"), "{}", page.authorization);
    }
    assert!(!asked[0].body.contains("NextToken"), "{}", asked[0].body);
    assert!(asked[1].has("NextToken", "second") && asked[2].has("NextToken", "third"));
}

#[tokio::test]
async fn pages_without_end_are_given_up() {
    let (sdk, fake) = scripted([tables(&["rtb-1"], Some("again"))]);
    let error = sdk.route_tables("vpc-7", &once()).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
    assert_eq!(fake.sent(), 50);
}

#[tokio::test]
async fn a_page_that_fails_leaves_no_half_of_an_answer() {
    let (sdk, _) = scripted([tables(&["rtb-1"], Some("second")), error(500, "InternalError", "no")]);
    let error = sdk.route_tables("vpc-7", &once()).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn routes_to_single_addresses_and_their_targets() {
    let route = |destination: &str, rest: &str| {
        format!("<item><destinationCidrBlock>{destination}</destinationCidrBlock>{rest}</item>")
    };
    let routes = [
        route("10.0.0.0/16", "<gatewayId>local</gatewayId><state>active</state>"),
        route(
            "10.9.0.1/32",
            "<instanceId>i-1</instanceId><networkInterfaceId>eni-1</networkInterfaceId><state>active</state>",
        ),
        route("10.9.0.2/32", "<networkInterfaceId>eni-2</networkInterfaceId><state>blackhole</state>"),
        route("10.9.0.3/32", "<gatewayId>igw-3</gatewayId><state>active</state>"),
        route("10.9.0.4/32", "<natGatewayId>nat-4</natGatewayId><state>active</state>"),
        route("10.9.0.5/32", "<instanceId>i-5</instanceId><state>active</state>"),
        route("10.9.0.6/32", "<vpcPeeringConnectionId>pcx-6</vpcPeeringConnectionId><state>active</state>"),
        route("10.9.0.7/32", "<transitGatewayId>tgw-7</transitGatewayId><state>active</state>"),
        route("10.9.0.8/32", "<state>blackhole</state>"),
        "<item><destinationIpv6CidrBlock>::/0</destinationIpv6CidrBlock><gatewayId>igw-3</gatewayId></item>"
            .to_owned(),
        "<item><destinationPrefixListId>pl-1</destinationPrefixListId><gatewayId>vpce-1</gatewayId></item>"
            .to_owned(),
    ]
    .concat();
    let inner = format!(
        "<routeTableSet><item><routeTableId>rtb-1</routeTableId><vpcId>vpc-7</vpcId><routeSet>{routes}</routeSet></item>\
         </routeTableSet>"
    );
    let (sdk, _) = scripted([done("DescribeRouteTables", &inner)]);
    let expected = [
        ("10.9.0.1/32", "eni-1", false),
        ("10.9.0.2/32", "eni-2", true),
        ("10.9.0.3/32", "igw-3", false),
        ("10.9.0.4/32", "nat-4", false),
        ("10.9.0.5/32", "i-5", false),
        ("10.9.0.6/32", "pcx-6", false),
        ("10.9.0.7/32", "tgw-7", false),
        ("10.9.0.8/32", "", true),
    ]
    .map(|(destination, target, blackhole)| Route {
        destination: destination.parse().unwrap(),
        target: target.to_owned(),
        blackhole,
    });
    let found = sdk.route_tables("vpc-7", &call()).await.unwrap();
    assert_eq!(found, [RouteTable { id: "rtb-1".to_owned(), routes: expected.to_vec() }]);
}

/// EC2 lists what it learned beside the entry that goes before it. Taken for one, it would be wrong for ever.
#[tokio::test]
async fn what_a_gateway_or_a_route_server_told_is_no_entry() {
    let route = |target: &str, origin: &str| {
        format!(
            "<item><destinationCidrBlock>10.9.0.1/32</destinationCidrBlock>{target}<origin>{origin}</origin>\
             <state>active</state></item>"
        )
    };
    let routes = [
        route("<gatewayId>vgw-1</gatewayId>", "EnableVgwRoutePropagation"),
        route("<networkInterfaceId>eni-1</networkInterfaceId>", "CreateRoute"),
        route("<networkInterfaceId>eni-2</networkInterfaceId>", "Advertisement"),
    ]
    .concat();
    let inner = format!(
        "<routeTableSet><item><routeTableId>rtb-1</routeTableId><routeSet>{routes}</routeSet></item></routeTableSet>"
    );
    let (sdk, _) = scripted([done("DescribeRouteTables", &inner)]);
    let found = sdk.route_tables("vpc-7", &call()).await.unwrap();
    let entry =
        Route { destination: "10.9.0.1/32".parse().unwrap(), target: "eni-1".to_owned(), blackhole: false };
    assert_eq!(found, [RouteTable { id: "rtb-1".to_owned(), routes: vec![entry] }]);
}

const ASSOCIATED: &str = "<item><publicIp>198.51.100.7</publicIp><allocationId>eipalloc-7</allocationId>\
    <domain>vpc</domain><associationId>eipassoc-7</associationId><instanceId>i-7</instanceId>\
    <networkInterfaceId>eni-7</networkInterfaceId><privateIpAddress>10.0.0.7</privateIpAddress></item>";

#[tokio::test]
async fn elastic_ips() {
    let other = "<item><publicIp>198.51.100.8</publicIp><allocationId>eipalloc-8</allocationId><domain>vpc</domain></item>";
    let answer = format!("<addressesSet>{ASSOCIATED}{other}</addressesSet>");
    let (sdk, fake) = scripted([done("DescribeAddresses", &answer)]);
    let seven = ElasticIp {
        address: Ipv4Addr::new(198, 51, 100, 7),
        allocation: "eipalloc-7".to_owned(),
        association: Some(Association {
            id: "eipassoc-7".to_owned(),
            interface: Some("eni-7".to_owned()),
            instance: Some("i-7".to_owned()),
            private_address: Some(Ipv4Addr::new(10, 0, 0, 7)),
        }),
    };
    let eight = ElasticIp {
        address: Ipv4Addr::new(198, 51, 100, 8),
        allocation: "eipalloc-8".to_owned(),
        association: None,
    };
    assert_eq!(sdk.elastic_ips_of("eni-7", &call()).await.unwrap(), [seven.clone(), eight.clone()]);
    assert_eq!(sdk.elastic_ip(eight.address, &call()).await.unwrap(), Some(eight));
    assert_eq!(sdk.elastic_ip(Ipv4Addr::new(198, 51, 100, 9), &call()).await.unwrap(), None);
    let asked = fake.asked();
    assert!(
        asked[0].has("Filter.1.Name", "network-interface-id") && asked[0].has("Filter.1.Value.1", "eni-7")
    );
    assert!(asked[1].has("Filter.1.Name", "public-ip") && asked[1].has("Filter.1.Value.1", "198.51.100.8"));
}

#[tokio::test]
async fn interfaces() {
    let item = "<networkInterfaceSet><item><networkInterfaceId>eni-7</networkInterfaceId><vpcId>vpc-7</vpcId>\
        <sourceDestCheck>false</sourceDestCheck><privateIpAddress>10.0.0.7</privateIpAddress>\
        <attachment><attachmentId>eni-attach-1</attachmentId><instanceId>i-7</instanceId></attachment>\
        <privateIpAddressesSet><item><privateIpAddress>10.0.0.9</privateIpAddress></item>\
        <item><privateIpAddress>10.0.0.7</privateIpAddress><primary>true</primary></item></privateIpAddressesSet>\
        </item></networkInterfaceSet>";
    let (sdk, fake) = scripted([
        done("DescribeNetworkInterfaces", item),
        done("DescribeNetworkInterfaces", "<networkInterfaceSet/>"),
    ]);
    let expected = InterfaceDetails {
        id: "eni-7".to_owned(),
        vpc: "vpc-7".to_owned(),
        instance: Some("i-7".to_owned()),
        source_dest_check: false,
        private_addresses: vec![Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::new(10, 0, 0, 9)],
    };
    assert_eq!(sdk.describe_interface("eni-7", &call()).await.unwrap(), expected);
    assert!(fake.asked()[0].has("NetworkInterfaceId.1", "eni-7"), "{:?}", fake.asked());
    let none = sdk.describe_interface("eni-8", &call()).await.unwrap_err();
    assert!(matches!(none, CallError::Missing { .. }), "{none:?}");
}
