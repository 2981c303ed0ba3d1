//! Signatures and IAM's policies, enforced by the server behind the proxy.

use anyhow::{Result, ensure};
use vipd_tests::{
    cloud::{Credentials, moto},
    netns::run,
};

use super::{
    Test,
    caller::{Scene, pairs, refusal},
};

pub const TESTS: &[(&str, Test)] = &[
    ("policies::a_role_may_do_what_its_policy_says_and_nothing_else", role),
    ("policies::a_wrong_secret_is_refused", wrong_secret),
];

const READER: &str = r#"{"Version": "2012-10-17", "Statement":
    [{"Effect": "Allow", "Action": "ec2:DescribeRouteTables", "Resource": "*"}]}"#;
const WRITER: &str = r#"{"Version": "2012-10-17", "Statement":
    [{"Effect": "Allow", "Action": ["ec2:DescribeRouteTables", "ec2:ReplaceRoute"], "Resource": "*"}]}"#;

fn role() -> Result<()> {
    let scene = Scene::new(1)?;
    let (moto, proxy) = (&scene.cloud.moto, &scene.cloud.proxy);
    let role = moto.role("node", READER)?;
    let user = moto.user("operator", WRITER)?;
    moto.enforce_policies(true)?;

    let call = |action: &str, parameters: &[(&str, &str)], who: &Credentials| {
        let request = moto::signed_call(&proxy.address().to_string(), action, parameters, who);
        let socket = scene.cloud.dial(&scene.hosts[0].ns)?;
        moto::read(&request.exchange(socket, std::time::Duration::from_secs(20))?)
    };
    let swap = scene.swap(0);
    let swap = pairs(&swap);
    let rehearsal = [&swap[..], &[("DryRun", "true")]].concat();
    call("DescribeRouteTables", &[], &role)?;
    for parameters in [&swap, &rehearsal] {
        let said = refusal(call("ReplaceRoute", parameters, &role))?;
        ensure!((said.status, said.code.as_str()) == (403, "UnauthorizedOperation"), "{said}");
    }
    let said = refusal(call("ReplaceRoute", &rehearsal, &user))?;
    ensure!((said.status, said.code.as_str()) == (412, "DryRunOperation"), "{said}");
    // Our own reads are signed and go on.
    ensure!(scene.owner(0)? == 0, "a DryRun was executed");
    call("ReplaceRoute", &swap, &user)?;
    ensure!(scene.owner(0)? == 1);
    // A policy that is changed counts from the next call on.
    moto.set_role_policy("node", WRITER)?;
    call("ReplaceRoute", &swap, &role)?;
    // The real client signs the same way.
    let mut aws = scene.cloud.aws(&scene.hosts[0].ns, &role)?;
    let said = run(aws.args(["ec2", "describe-route-tables", "--output", "text"]))?;
    ensure!(String::from_utf8_lossy(&said.stdout).contains(&scene.world.tables[0]));
    // Nobody in particular.
    let said = scene.refusal("DescribeRouteTables", &[])?;
    ensure!((said.status, said.code.as_str()) == (401, "AuthFailure"), "{said}");
    moto.enforce_policies(false)?;
    scene.call("DescribeRouteTables", &[])?;
    let keys: Vec<_> = proxy.calls().into_iter().filter_map(|call| call.access_key).collect();
    ensure!(keys.contains(&role.access_key) && keys.contains(&user.access_key), "{keys:?}");
    Ok(())
}

fn wrong_secret() -> Result<()> {
    let scene = Scene::new(1)?;
    let user = scene.cloud.moto.user("operator", WRITER)?;
    scene.cloud.moto.enforce_policies(true)?;
    let other = Credentials { secret: "none of his".to_owned(), ..user };
    let mut aws = scene.cloud.aws(&scene.hosts[0].ns, &other)?;
    let said = aws.args(["ec2", "describe-route-tables"]).output()?;
    let said = String::from_utf8_lossy(&said.stderr);
    ensure!(said.contains("AuthFailure"), "{said}");
    Ok(())
}
