use std::time::Duration;

use super::{
    Answer,
    answers::{error, throttled, whole},
    impatient, once, permit, scripted, scripted_with,
};
use crate::{Action, Call, CallError, Ec2, Options};

async fn read_with(answer: Answer, call: &Call) -> CallError {
    let (sdk, _) = scripted([answer]);
    sdk.route_tables("vpc-1", call).await.unwrap_err()
}

async fn read(answer: Answer) -> CallError {
    read_with(answer, &once()).await
}

async fn write(answer: Answer) -> CallError {
    let (sdk, _) = scripted([answer]);
    let vip = "10.9.0.1/32".parse().unwrap();
    sdk.replace_route("rtb-1", vip, "eni-1", &once(), permit()).await.unwrap_err()
}

#[tokio::test]
async fn throttling() {
    for (status, code) in [
        (503, "RequestLimitExceeded"),
        (503, "Client.RequestLimitExceeded"),
        (400, "Client.RequestLimitExceeded"),
        (400, "Throttling"),
        (400, "ThrottlingException"),
        (400, "RequestThrottled"),
        (503, "SlowDown"),
    ] {
        let error = read(error(status, code, "Request limit exceeded.")).await;
        let bare = code.strip_prefix("Client.").unwrap_or(code).to_owned();
        let what = "ec2:DescribeRouteTables (vpc-1)".to_owned();
        assert_eq!(error, CallError::Throttled { what, code: bare }, "{code}");
        assert!(error.is_passing());
    }
    let of_a_proxy = read(Answer::Reply(429, String::new())).await;
    assert!(matches!(of_a_proxy, CallError::Throttled { ref code, .. } if code == "429"), "{of_a_proxy:?}");
}

#[tokio::test]
async fn denied_names_the_action_and_cuts_the_encoded_message() {
    let encoded = "Encoded authorization failure message: ".to_owned() + &"x".repeat(2000);
    let message = format!("You are not authorized to perform this operation. {encoded}");
    let denied = write(error(403, "UnauthorizedOperation", &message)).await;
    assert_eq!(
        denied,
        CallError::Denied {
            action: Action::ReplaceRoute,
            code: "UnauthorizedOperation".to_owned(),
            message: "You are not authorized to perform this operation.".to_owned(),
        }
    );
    assert!(!denied.is_passing());
    let foreign = "You do not have permission to access the specified resource.";
    for (status, code, message) in [(403, "AccessDenied", "no"), (403, "AuthFailure", foreign)] {
        let denied = read(error(status, code, message)).await;
        assert!(matches!(denied, CallError::Denied { code: ref c, .. } if c == code), "{code}: {denied:?}");
    }
}

/// No policy helps against a clock that is wrong.
#[tokio::test]
async fn who_is_not_let_in_at_all_lacks_no_permission() {
    for (status, code) in [
        (401, "AuthFailure"),
        (400, "ExpiredToken"),
        (400, "RequestExpired"),
        (403, "InvalidClientTokenId"),
        (401, "OptInRequired"),
        (400, "PendingVerification"),
        (403, "SignatureDoesNotMatch"),
    ] {
        let (code, message) = (code.to_owned(), "no".to_owned());
        let expected = CallError::Unaccepted { code: code.clone(), message };
        assert_eq!(read(error(status, &code, "no")).await, expected);
        assert!(!expected.is_passing());
    }
}

#[tokio::test]
async fn missing() {
    for (code, message) in [
        ("InvalidRouteTableID.NotFound", "The routeTable ID 'rtb-1' does not exist"),
        ("InvalidAssociationID.NotFound", "gone"),
        ("InvalidAllocationID.NotFound", "gone"),
        ("InvalidNetworkInterfaceID.NotFound", "gone"),
        ("InvalidAddress.NotFound", "gone"),
        (
            "InvalidParameterValue",
            "There is no route defined for '10.9.0.1/32' in the route table. Use CreateRoute instead.",
        ),
    ] {
        let missing = write(error(400, code, message)).await;
        let CallError::Missing { what, code: found, message: said } = &missing else {
            panic!("{code}: {missing:?}")
        };
        assert_eq!(what, "ec2:ReplaceRoute (10.9.0.1/32 in rtb-1 to eni-1)");
        assert_eq!((found.as_str(), said.as_str()), (code, message));
        assert!(!missing.is_passing());
    }
}

#[tokio::test]
async fn refused() {
    for code in ["Resource.AlreadyAssociated", "InvalidParameterValue", "IncorrectState"] {
        let refused = write(error(400, code, "no")).await;
        assert!(
            matches!(refused, CallError::Refused { code: ref c, .. } if c == code),
            "{code}: {refused:?}"
        );
        assert!(!refused.is_passing());
    }
    let long = write(error(400, "Odd", &format!("one\n\t two {}", "y".repeat(5000)))).await;
    let CallError::Refused { message, .. } = &long else { panic!("{long:?}") };
    assert!(message.starts_with("one two y") && message.len() < 400, "{message}");
}

#[tokio::test]
async fn failures_of_ec2_itself() {
    for (status, code) in [(500, "InternalError"), (503, "Unavailable"), (503, "ServiceUnavailable")] {
        let unavailable = read(error(status, code, "An internal error has occurred")).await;
        assert!(
            matches!(unavailable, CallError::Unavailable { code: ref c, .. } if c == code),
            "{unavailable:?}"
        );
        assert!(unavailable.is_passing());
    }
    let bare = read(Answer::Reply(502, "<html>Bad Gateway</html>".to_owned())).await;
    assert!(matches!(bare, CallError::Unavailable { ref code, .. } if code == "502"), "{bare:?}");
}

#[tokio::test]
async fn silence() {
    let silent = read_with(Answer::Silence, &Call { retries: 0, ..impatient() }).await;
    let what = "ec2:DescribeRouteTables (vpc-1)".to_owned();
    assert_eq!(silent, CallError::Silent { what, within: Duration::from_secs(20) });
    assert!(silent.is_passing());
    let retried = read_with(Answer::Silence, &impatient()).await;
    assert!(matches!(retried, CallError::Silent { .. }), "{retried:?}");
}

#[tokio::test]
async fn connections_that_fail() {
    for (answer, reason) in [(Answer::Refused, "connection refused"), (Answer::Reset, "connection reset")] {
        let failed = read(answer).await;
        let CallError::Unreachable { reason: found, .. } = &failed else { panic!("{failed:?}") };
        assert!(found.contains(reason), "{found}");
        assert!(failed.is_passing());
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let cut = whole("DescribeRouteTables", "<routeTableSet><item><routeTableId>rtb-1</routeTableId></item>");
    for body in [
        cut.split("</item>").next().unwrap().to_owned(),
        cut.split("</DescribeRouteTablesResponse>").next().unwrap().to_owned(),
        String::new(),
        "<html><body>Please log in</body></html>".to_owned(),
        "garbage".to_owned(),
        whole("DescribeAddresses", ""),
    ] {
        let broken = read(Answer::Reply(200, body.clone())).await;
        assert!(matches!(broken, CallError::Unreachable { .. }), "{body}: {broken:?}");
    }
    // Nor does a write count as done.
    for body in [String::new(), "garbage".to_owned(), "<ReplaceRouteResponse><return>true".to_owned()] {
        let broken = write(Answer::Reply(200, body.clone())).await;
        assert!(matches!(broken, CallError::Unreachable { .. }), "{body}: {broken:?}");
    }
    // Without a code it is not EC2 that denies.
    let portal = read(Answer::Reply(403, "<html>Blocked by proxy</html>".to_owned())).await;
    assert!(matches!(portal, CallError::Unreachable { .. }), "{portal:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused() {
    let options = Options { endpoint: Some("not a url".to_owned()), ..Options::default() };
    let (sdk, fake) = scripted_with(options, [throttled()]);
    let error = sdk.route_tables("vpc-1", &once()).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { .. }), "{error:?}");
    assert_eq!(fake.sent(), 0);
}
