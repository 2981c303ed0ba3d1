//! The world can be made, changed and read back.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{
    Test,
    caller::{ROUTE, Scene, pairs, refusal},
};

pub const TESTS: &[(&str, Test)] = &[
    ("server::a_swapped_route_is_the_only_difference", swap),
    ("server::what_does_not_exist_is_refused_as_by_ec2", refusals),
    ("server::elastic_ips_move", elastic_ips),
    ("server::interfaces_come_and_go", interfaces),
];

fn swap() -> Result<()> {
    let scene = Scene::new(1)?;
    let world = &scene.world;
    let before = world.snapshot()?;
    // In each of our tables: local, two of the stranger's, the Internet's, the VIP's.
    ensure!(before.len() >= 3 * 5 + 4, "only {} routes", before.len());
    ensure!((0..3).all(|table| scene.owner(table).is_ok_and(|owner| owner == 0)));
    scene.call("ReplaceRoute", &pairs(&scene.swap(1)))?;
    let after = world.snapshot()?;
    ensure!(before != after, "nothing has changed");
    ensure!([scene.owner(0)?, scene.owner(1)?, scene.owner(2)?] == [0, 1, 0]);
    let ours = [ROUTE.to_owned()];
    ensure!(before.except(&world.tables[1..2], &ours) == after.except(&world.tables[1..2], &ours));
    ensure!(before.except(&world.tables[0..1], &ours) != after.except(&world.tables[0..1], &ours));
    // A route of somebody else's is noticed.
    world.replace_route(&world.tables[2], "172.16.9.9/32", &world.nodes[0].eni)?;
    ensure!(after.except(&world.tables, &ours) != world.snapshot()?.except(&world.tables, &ours));
    world.replace_route(&world.tables[2], "172.16.9.9/32", &world.stranger.eni)?;
    world.delete_route(&world.tables[0], "192.168.5.0/24")?;
    ensure!(after.except(&world.tables, &ours) != world.snapshot()?.except(&world.tables, &ours));
    Ok(())
}

fn refusals() -> Result<()> {
    let scene = Scene::new(1)?;
    let mut swap = scene.swap(0);
    swap[1].1 = "172.16.0.51/32".to_owned();
    let said = scene.refusal("ReplaceRoute", &pairs(&swap))?;
    ensure!((said.status, said.code.as_str()) == (400, "InvalidParameterValue"), "{said}");
    let mut swap = scene.swap(0);
    swap[0].1 = "rtb-0123456789abcdef0".to_owned();
    let said = scene.refusal("ReplaceRoute", &pairs(&swap))?;
    ensure!((said.status, said.code.as_str()) == (400, "InvalidRouteTableID.NotFound"), "{said}");
    Ok(())
}

fn elastic_ips() -> Result<()> {
    let scene = Scene::new(1)?;
    let world = &scene.world;
    let (first, second) = (world.allocate_address()?, world.allocate_address()?);
    ensure!(world.eips()?.len() == 2 && world.eip(first)?.association.is_none());
    world.associate_address(first, &world.nodes[0].eni)?;
    let eip = world.eip(first)?;
    ensure!(eip.eni.as_ref() == Some(&world.nodes[0].eni) && eip.association.is_some(), "{eip:?}");
    ensure!(world.eip(second)?.eni.is_none());
    let said = world.associate_address(first, &world.nodes[1].eni).unwrap_err();
    let said = refusal(Err(said))?;
    ensure!(said.code == "Resource.AlreadyAssociated", "{said}");
    let association = eip.association.unwrap();
    scene.call("DisassociateAddress", &[("AssociationId", &association)])?;
    ensure!(world.eip(first)?.eni.is_none());
    let said = scene.refusal("DisassociateAddress", &[("AssociationId", &association)])?;
    ensure!(said.code == "InvalidAssociationID.NotFound", "{said}");
    Ok(())
}

fn interfaces() -> Result<()> {
    let scene = Scene::new(1)?;
    let world = &scene.world;
    let node = &world.nodes[0];
    ensure!(!world.source_dest_check(&node.eni)? && world.source_dest_check(&world.stranger.eni)?);
    world.set_source_dest_check(node, true)?;
    ensure!(world.source_dest_check(&node.eni)?);
    ensure!(world.interface(&node.eni)?.at("privateIpAddress")? == node.address.to_string());
    ensure!(world.subnets[0].zone != world.subnets[1].zone);
    let eni = world.add_interface(node, Ipv4Addr::new(10, 77, 0, 77))?;
    let attached = world.interface(&eni)?;
    ensure!(attached.at("attachment/instanceId")? == node.instance);
    ensure!(attached.at("attachment/deviceIndex")? == "1");
    world.detach_interface(&eni)?;
    ensure!(world.interface(&eni)?.at("attachment/instanceId").is_err());
    ensure!(world.detach_interface(&node.eni).is_err(), "an instance's only interface was detached");
    Ok(())
}
