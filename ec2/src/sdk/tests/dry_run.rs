use super::{
    Answer,
    answers::{done, error, tables, throttled},
    call, impatient, once, scripted,
};
use crate::{Action, CallError, DryRun, Ec2};

fn probes() -> Vec<DryRun> {
    vec![
        DryRun::DescribeRouteTables,
        DryRun::DescribeAddresses,
        DryRun::DescribeNetworkInterfaces,
        DryRun::ReplaceRoute {
            table: "rtb-1".to_owned(),
            destination: "10.9.0.1/32".parse().unwrap(),
            eni: "eni-1".to_owned(),
        },
        DryRun::DisassociateAddress { association: None },
        DryRun::AssociateAddress { allocation: "eipalloc-1".to_owned(), eni: "eni-1".to_owned() },
    ]
}

#[tokio::test]
async fn would_have_succeeded() {
    for probe in probes() {
        let (sdk, fake) = scripted([error(
            412,
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        )]);
        assert_eq!(sdk.may(&probe, &call()).await, Ok(()), "{probe:?}");
        let asked = fake.asked();
        assert_eq!(asked.len(), 1);
        assert!(asked[0].has("DryRun", "true"), "{}", asked[0].body);
        assert!(asked[0].has("Action", &format!("{:?}", probe.action())), "{}", asked[0].body);
    }
}

#[tokio::test]
async fn would_have_been_denied() {
    for probe in probes() {
        let (sdk, _) = scripted([error(403, "UnauthorizedOperation", "You are not authorized")]);
        let error = sdk.may(&probe, &call()).await.unwrap_err();
        assert!(matches!(error, CallError::Denied { action, .. } if action == probe.action()), "{error:?}");
    }
}

#[tokio::test]
async fn about_objects_only_those_are_told_who_may() {
    let probe = DryRun::DisassociateAddress { association: None };
    let (sdk, fake) = scripted([error(400, "InvalidAssociationID.NotFound", "no")]);
    assert_eq!(sdk.may(&probe, &call()).await, Ok(()));
    assert!(fake.asked()[0].has("AssociationId", "eipassoc-00000000000000000"));
    let associate = DryRun::AssociateAddress { allocation: "eipalloc-1".to_owned(), eni: "eni-1".to_owned() };
    let (sdk, _) = scripted([error(400, "Resource.AlreadyAssociated", "no")]);
    assert_eq!(sdk.may(&associate, &call()).await, Ok(()));
}

#[tokio::test]
async fn what_proves_nothing_is_an_error() {
    let probe = DryRun::DisassociateAddress { association: Some("eipassoc-1".to_owned()) };
    for answer in [
        throttled(),
        error(500, "InternalError", "no"),
        error(400, "InvalidAssociationID.Malformed", "no"),
        error(400, "InvalidParameterValue", "no"),
        error(401, "OptInRequired", "no"),
        Answer::Silence,
        Answer::Refused,
        Answer::Reply(200, "garbage".to_owned()),
    ] {
        let (sdk, _) = scripted([answer.clone()]);
        let call = if matches!(answer, Answer::Silence) { impatient() } else { once() };
        assert!(sdk.may(&probe, &call).await.is_err(), "{answer:?}");
    }
}

#[tokio::test]
async fn done_after_all_was_permitted() {
    let (sdk, _) = scripted([tables(&[], None)]);
    assert_eq!(sdk.may(&DryRun::DescribeRouteTables, &call()).await, Ok(()));
    let (sdk, _) = scripted([done("DescribeAddresses", "<addressesSet/>")]);
    assert_eq!(sdk.may(&DryRun::DescribeAddresses, &call()).await, Ok(()));
    assert_eq!(Action::DescribeAddresses.to_string(), "ec2:DescribeAddresses");
}
