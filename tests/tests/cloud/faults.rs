//! Every fault does what its name says: to the client, and to the server's state.

use std::{
    io::{Read, Write},
    time::Duration,
};

use anyhow::{Result, ensure};
use vipd_tests::{
    cloud::{Call, Fault, Outcome, When, moto},
    lab::{PATIENCE, wait_until},
    timeline::Moment,
};

use super::{
    Test,
    caller::{Scene, pairs},
};

pub const TESTS: &[(&str, Test)] = &[
    ("faults::answers_without_execution", canned),
    ("faults::execution_without_a_whole_answer", executed),
    ("faults::hanging_calls_go_on_when_lifted", hanging),
    ("faults::delay_and_latency", late),
    ("faults::rules_choose_by_action_client_parameter_and_number", chosen),
    ("faults::a_dry_run_executes_nothing", dry_run),
    ("faults::lists_come_in_pages", pages),
];

/// A call shorter than this is not expected to be answered.
const SHORT: Duration = Duration::from_millis(300);

fn last(scene: &Scene) -> Call {
    scene.cloud.proxy.calls().pop().unwrap()
}

fn canned() -> Result<()> {
    let scene = Scene::new(1)?;
    let proxy = &scene.cloud.proxy;
    let swap = scene.swap(0);
    for (fault, status, code) in [
        (Fault::Throttle, 503, "RequestLimitExceeded"),
        (Fault::InternalError, 500, "InternalError"),
        (Fault::Unavailable, 503, "Unavailable"),
        (Fault::Denied, 403, "UnauthorizedOperation"),
    ] {
        proxy.inject(When::action("ReplaceRoute").times(1), fault);
        let said = scene.refusal("ReplaceRoute", &pairs(&swap))?;
        ensure!((said.status, said.code.as_str()) == (status, code), "{fault:?}: {said}");
        ensure!(last(&scene).outcome == Outcome::Answered(status) && last(&scene).fault == Some(fault));
    }
    proxy.inject(When::action("ReplaceRoute").times(1), Fault::FalseSuccess);
    let said = scene.call("ReplaceRoute", &pairs(&swap))?;
    ensure!(said.name == "ReplaceRouteResponse" && said.at("return")? == "true", "{}", said.to_xml());
    proxy.inject(When::action("ReplaceRoute").times(1), Fault::Garbage);
    let said = scene.send("ReplaceRoute", &pairs(&swap))?;
    ensure!(said.status == 200 && moto::read(&said).is_err(), "{said:?}");
    proxy.inject(When::action("ReplaceRoute").times(1), Fault::Reset);
    let error = format!("{:#}", scene.send("ReplaceRoute", &pairs(&swap)).unwrap_err());
    ensure!(error.contains("reset by peer"), "{error}");
    ensure!(last(&scene).outcome == Outcome::Reset);
    ensure!(proxy.calls().iter().all(|call| call.executed.is_none()), "something was executed");
    ensure!(scene.owner(0)? == 0);
    // All rules are used up.
    scene.call("ReplaceRoute", &pairs(&swap))?;
    ensure!(scene.owner(0)? == 1 && last(&scene).is_effective_write());
    Ok(())
}

fn executed() -> Result<()> {
    let scene = Scene::new(1)?;
    let proxy = &scene.cloud.proxy;
    proxy.inject(When::action("ReplaceRoute").times(1), Fault::LoseAnswer);
    let error = scene.send("ReplaceRoute", &pairs(&scene.swap(0))).unwrap_err();
    ensure!(format!("{error:#}").contains("without an answer"), "{error:#}");
    ensure!(scene.owner(0)? == 1 && last(&scene).outcome == Outcome::Closed);
    proxy.inject(When::action("ReplaceRoute").times(1), Fault::Truncate);
    let error = scene.send("ReplaceRoute", &pairs(&scene.swap(1))).unwrap_err();
    ensure!(format!("{error:#}").contains("bytes"), "{error:#}");
    ensure!(scene.owner(1)? == 1 && last(&scene).outcome == Outcome::Cut);
    ensure!(last(&scene).executed.is_some_and(|done| done.status == 200 && done.order == 1));
    Ok(())
}

fn hanging() -> Result<()> {
    let scene = Scene::new(1)?;
    let proxy = &scene.cloud.proxy;
    // The client has given up before the call is executed.
    let rule = proxy.inject(When::action("ReplaceRoute"), Fault::Hang);
    let mark = proxy.mark();
    ensure!(scene.send_from(0, "ReplaceRoute", &pairs(&scene.swap(0)), SHORT).is_err());
    wait_until(PATIENCE, "the call has arrived", || {
        ensure!(proxy.mark() > mark, "not yet");
        Ok(())
    })?;
    ensure!(last(&scene).outcome == Outcome::Pending && last(&scene).executed.is_none());
    ensure!(scene.owner(0)? == 0);
    proxy.lift(rule);
    wait_until(PATIENCE, "the late call is executed", || {
        ensure!(last(&scene).is_effective_write(), "not yet");
        Ok(())
    })?;
    ensure!(scene.owner(0)? == 1);
    // This one waits.
    let rule = proxy.inject(When::action("ReplaceRoute"), Fault::HangAnswer);
    let request = moto::call(&proxy.address().to_string(), "ReplaceRoute", &pairs(&scene.swap(1)));
    let mut socket = scene.cloud.dial(&scene.hosts[0].ns)?;
    let mark = proxy.mark();
    socket.write_all(&request.to_bytes())?;
    wait_until(PATIENCE, "it is executed", || {
        let calls = proxy.calls_since(mark);
        ensure!(calls.first().is_some_and(|call| call.executed.is_some()), "not yet");
        Ok(())
    })?;
    ensure!(scene.owner(1)? == 1 && last(&scene).outcome == Outcome::Pending);
    socket.set_read_timeout(Some(SHORT))?;
    let mut answer = Vec::new();
    ensure!(socket.read_to_end(&mut answer).is_err() && answer.is_empty(), "it was answered");
    proxy.lift(rule);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"));
    Ok(())
}

/// Times can only be judged from below: an answer that comes too early.
fn late() -> Result<()> {
    let scene = Scene::new(1)?;
    let proxy = &scene.cloud.proxy;
    let duration = || -> Result<Duration> {
        let begun = Moment::now();
        scene.call("DescribeRouteTables", &[])?;
        Ok(Moment::now().since(begun))
    };
    proxy.set_latency(Duration::from_millis(50));
    ensure!(duration()? >= Duration::from_millis(50));
    proxy.inject(When::any().times(1), Fault::Delay(Duration::from_millis(200)));
    ensure!(duration()? >= Duration::from_millis(250));
    let call = last(&scene);
    ensure!(call.executed.is_some_and(|done| done.at.since(call.at) >= Duration::from_millis(250)));
    Ok(())
}

fn chosen() -> Result<()> {
    let scene = Scene::new(2)?;
    let (proxy, world) = (&scene.cloud.proxy, &scene.world);
    let status = |host: usize, action: &str, parameters: &[(&str, &str)]| {
        Ok(scene.send_from(host, action, parameters, PATIENCE)?.status)
    };
    let read = |host| -> Result<u16> { status(host, "DescribeRouteTables", &[]) };
    // One host alone.
    let rule = proxy.inject(When::any().from(scene.hosts[1].address), Fault::Throttle);
    ensure!([read(0)?, read(1)?, read(1)?] == [200, 503, 503]);
    proxy.lift(rule);
    ensure!(read(1)? == 200);
    // One action, twice.
    proxy.inject(When::action("DescribeRouteTables").times(2), Fault::InternalError);
    ensure!(status(0, "DescribeVpcs", &[])? == 200);
    ensure!([read(0)?, read(1)?, read(0)?] == [500, 500, 200]);
    // One table.
    let one = When::action("ReplaceRoute").with("RouteTableId", &world.tables[1]);
    proxy.inject(one, Fault::Denied);
    let swap = |table| -> Result<u16> { status(0, "ReplaceRoute", &pairs(&scene.swap(table))) };
    ensure!([swap(0)?, swap(1)?, swap(2)?] == [200, 403, 200]);
    ensure!([scene.owner(0)?, scene.owner(1)?, scene.owner(2)?] == [1, 0, 1]);
    // The oldest decides.
    proxy.inject(When::any(), Fault::Throttle);
    ensure!([swap(1)?, swap(2)?] == [403, 503]);
    proxy.lift_all();
    ensure!([swap(1)?, read(0)?] == [200, 200]);

    let counts = vipd_tests::cloud::journal::count(&proxy.calls());
    let (first, second) = (scene.hosts[0].address, scene.hosts[1].address);
    ensure!(counts[&(first, "ReplaceRoute".to_owned())] == 6, "{counts:?}");
    ensure!(counts[&(second, "DescribeRouteTables".to_owned())] == 4, "{counts:?}");
    ensure!(proxy.count("DescribeVpcs") == 1 && proxy.calls_since(proxy.mark() - 1).len() == 1);
    let call = proxy.calls().into_iter().find(|call| call.action == "ReplaceRoute").unwrap();
    ensure!(call.parameter("RouteTableId") == world.tables[0] && call.client == first, "{call:?}");
    Ok(())
}

fn dry_run() -> Result<()> {
    let scene = Scene::new(1)?;
    let swap = scene.swap(0);
    let rehearsal = [pairs(&swap), vec![("DryRun", "true")]].concat();
    let said = scene.refusal("ReplaceRoute", &rehearsal)?;
    ensure!((said.status, said.code.as_str()) == (412, "DryRunOperation"), "{said}");
    ensure!(scene.owner(0)? == 0 && last(&scene).is_dry_run() && !last(&scene).is_effective_write());
    scene.cloud.proxy.inject(When::action("ReplaceRoute"), Fault::Denied);
    let said = scene.refusal("ReplaceRoute", &rehearsal)?;
    ensure!((said.status, said.code.as_str()) == (403, "UnauthorizedOperation"), "{said}");
    // What is not denied still would succeed.
    let said = scene.refusal("DescribeRouteTables", &[("DryRun", "true")])?;
    ensure!((said.status, said.code.as_str()) == (412, "DryRunOperation"), "{said}");
    scene.call("ReplaceRoute", &[pairs(&swap), vec![("DryRun", "false")]].concat()).unwrap_err();
    Ok(())
}

fn pages() -> Result<()> {
    let scene = Scene::new(1)?;
    let whole = scene.call("DescribeRouteTables", &[])?;
    ensure!(whole.child("nextToken").is_none());
    let all: Vec<_> = whole.items("routeTableSet").cloned().collect();
    ensure!(all.len() >= 5, "only {} tables", all.len());
    // What the client wants and what the server gives at most: the smaller one counts.
    for (page, wanted, size) in [(Some(2), None, 2), (None, Some("2"), 2), (Some(3), Some("1"), 1)] {
        scene.cloud.proxy.set_page(page);
        let (mut found, mut token, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let mut parameters: Vec<_> = wanted.map(|wanted| ("MaxResults", wanted)).into_iter().collect();
            parameters.extend(token.as_deref().map(|token| ("NextToken", token)));
            let answer = scene.call("DescribeRouteTables", &parameters)?;
            ensure!(answer.items("routeTableSet").count() <= size);
            found.extend(answer.items("routeTableSet").cloned());
            pages += 1;
            token = answer.at("nextToken").ok().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        ensure!(found == all && pages == all.len().div_ceil(size), "{pages} pages");
    }
    let said = scene.refusal("DescribeRouteTables", &[("NextToken", "nonsense")])?;
    ensure!(said.status == 400, "{said}");
    Ok(())
}
