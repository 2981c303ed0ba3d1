use super::{
    answers::{done, error, replaced},
    call, permit, scripted,
};
use crate::{Call, CallError, Ec2};

#[tokio::test]
async fn replaces_a_route() {
    let (sdk, fake) = scripted([replaced()]);
    sdk.replace_route("rtb-1", "10.9.0.1/32".parse().unwrap(), "eni-1", &call(), permit()).await.unwrap();
    let asked = &fake.asked()[0];
    for (name, value) in [
        ("Action", "ReplaceRoute"),
        ("RouteTableId", "rtb-1"),
        ("DestinationCidrBlock", "10.9.0.1%2F32"),
        ("NetworkInterfaceId", "eni-1"),
    ] {
        assert!(asked.has(name, value), "{name}: {}", asked.body);
    }
    assert!(!asked.body.contains("DryRun"), "{}", asked.body);
    assert_eq!(asked.connect_timeout, Some(std::time::Duration::from_secs(3)));
}

#[tokio::test]
async fn disassociates_what_may_be_gone() {
    let (sdk, fake) = scripted([
        done("DisassociateAddress", "<return>true</return>"),
        error(400, "InvalidAssociationID.NotFound", "The association ID 'eipassoc-1' does not exist"),
        error(400, "IncorrectState", "no"),
    ]);
    sdk.disassociate("eipassoc-1", &call(), permit()).await.unwrap();
    sdk.disassociate("eipassoc-1", &call(), permit()).await.unwrap();
    let refused = sdk.disassociate("eipassoc-1", &call(), permit()).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { .. }), "{refused:?}");
    let asked = &fake.asked()[0];
    assert!(
        asked.has("Action", "DisassociateAddress") && asked.has("AssociationId", "eipassoc-1"),
        "{}",
        asked.body
    );
}

#[tokio::test]
async fn associates_but_takes_away_from_nobody() {
    let (sdk, fake) = scripted([
        done("AssociateAddress", "<return>true</return><associationId>eipassoc-2</associationId>"),
        error(400, "Resource.AlreadyAssociated", "resource eipalloc-1 is already associated"),
    ]);
    sdk.associate("eipalloc-1", "eni-1", &call(), permit()).await.unwrap();
    let refused = sdk.associate("eipalloc-1", "eni-1", &call(), permit()).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { .. }), "{refused:?}");
    let asked = &fake.asked()[0];
    for (name, value) in [
        ("Action", "AssociateAddress"),
        ("AllocationId", "eipalloc-1"),
        ("NetworkInterfaceId", "eni-1"),
        ("AllowReassociation", "false"),
    ] {
        assert!(asked.has(name, value), "{name}: {}", asked.body);
    }
}

#[tokio::test]
async fn each_region_has_its_own_client() {
    let (sdk, fake) = scripted([replaced()]);
    for region in ["eu-central-1", "us-east-2", "eu-central-1"] {
        let call = Call { region: Some(region.to_owned()), ..call() };
        sdk.replace_route("rtb-1", "10.9.0.1/32".parse().unwrap(), "eni-1", &call, permit()).await.unwrap();
    }
    let regions: Vec<_> =
        fake.asked().iter().map(|asked| asked.authorization.split('/').nth(2).unwrap().to_owned()).collect();
    assert_eq!(regions, ["eu-central-1", "us-east-2", "eu-central-1"]);
}
