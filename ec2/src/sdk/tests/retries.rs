use std::{sync::Arc, time::Duration};

use super::{
    super::attempts::in_all,
    Answer,
    answers::{done, error, replaced, tables, throttled},
    call, impatient, permit, scripted,
};
use crate::{Call, CallError, Ec2};

#[tokio::test]
async fn what_passes_is_retried() {
    for passing in [
        throttled(),
        error(400, "Client.RequestLimitExceeded", "Request limit exceeded."),
        Answer::Reply(429, String::new()),
        error(500, "InternalError", "no"),
        error(503, "Unavailable", "no"),
        Answer::Silence,
        Answer::Reset,
        Answer::Refused,
        Answer::Reply(200, "<DescribeRouteTablesResponse><routeTableSet>".to_owned()),
        Answer::Reply(200, String::new()),
    ] {
        let call = if matches!(passing, Answer::Silence) { impatient() } else { call() };
        let (sdk, _) =
            scripted([passing.clone(), passing.clone(), passing.clone(), tables(&["rtb-1"], None)]);
        let found = sdk.route_tables("vpc-1", &call).await;
        assert_eq!(found.map(|tables| tables.len()), Ok(1), "{passing:?}");
        // Not a fourth time.
        let (sdk, _) =
            scripted([passing.clone(), passing.clone(), passing.clone(), passing.clone(), tables(&[], None)]);
        let error = sdk.route_tables("vpc-1", &call).await.unwrap_err();
        assert!(error.is_passing(), "{passing:?}: {error:?}");
    }
}

#[tokio::test]
async fn what_does_not_pass_is_not() {
    for definite in [
        error(403, "UnauthorizedOperation", "no"),
        error(400, "InvalidRouteTableID.NotFound", "no"),
        error(400, "InvalidParameterValue", "no"),
    ] {
        let (sdk, fake) = scripted([definite, replaced()]);
        let vip = "10.9.0.1/32".parse().unwrap();
        sdk.replace_route("rtb-1", vip, "eni-1", &call(), permit()).await.unwrap_err();
        assert_eq!(fake.sent(), 1);
    }
}

#[tokio::test]
async fn without_retries_there_is_one_attempt() {
    let (sdk, fake) = scripted([throttled()]);
    let call = Call { retries: 0, ..call() };
    let error = sdk.route_tables("vpc-1", &call).await.unwrap_err();
    assert!(matches!(error, CallError::Throttled { .. }), "{error:?}");
    assert_eq!(fake.sent(), 1);
}

/// The SDK's own bucket has retries for a hundred calls, and none for those that come after.
#[tokio::test]
async fn hundreds_of_throttled_calls_have_all_their_retries() {
    let (sdk, fake) = scripted([throttled()]);
    let sdk = Arc::new(sdk);
    let start = |number| {
        let sdk = Arc::clone(&sdk);
        tokio::spawn(async move { sdk.replace_route("rtb-1", vip(number), "eni-1", &call(), permit()).await })
    };
    let tasks: Vec<_> = (0..300).map(start).collect();
    for task in tasks {
        let result = task.await.unwrap();
        assert!(matches!(result, Err(CallError::Throttled { .. })), "{result:?}");
    }
    assert_eq!(fake.sent(), 300 * 4);
}

fn vip(number: u32) -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::from(std::net::Ipv4Addr::from_bits(0x0a09_0000 + number))
}

#[tokio::test]
async fn a_retry_after_success_is_not_made() {
    let (sdk, fake) = scripted([done("ReplaceRoute", "<return>true</return>")]);
    sdk.replace_route("rtb-1", vip(1), "eni-1", &call(), permit()).await.unwrap();
    assert_eq!(fake.sent(), 1);
}

#[test]
fn the_whole_is_bounded_by_its_attempts_and_pauses() {
    assert_eq!(in_all(Duration::from_secs(5), 0), Duration::from_secs(6));
    assert_eq!(in_all(Duration::from_secs(5), 3), Duration::from_secs(4 * 5 + 3 * 5 + 1));
    assert_eq!(in_all(Duration::MAX, u32::MAX), Duration::MAX);
}
