//! `create ec2-route` and `create ec2-eip` (rows EC2-1, EC2-2, EC2-5, EC2-8).

use super::{
    super::{Context, Member, Out, Result, lookup, progress},
    others, refuse_tag, settings,
};
use crate::{
    api::{Answer, ApiError, CreateEc2Eip, CreateEc2Route, counted},
    core::change::Change,
    model::{
        Cloud, ClusterState, Ec2Eip, Ec2Route, Kind, NodeId, NodeSettings, Phase, Policy, Resource, Tag,
    },
};

impl Context {
    pub(in crate::api::backend) async fn create_ec2_route(
        &self,
        wanted: CreateEc2Route,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let (ip, on) = followed(&state, &wanted.ip)?;
        let tag = match wanted.tag {
            Some(tag) => tag,
            None => default_tag(wanted.ip.as_str())?,
        };
        refuse_tag(&state, &tag)?;
        let nodes = ip.nodes.iter().map(|(id, s)| {
            let settings = NodeSettings::new(s.priority, Vec::new());
            (*id, NodeSettings { restore_and_recover: s.restore_and_recover, ..settings })
        });
        let kind = Kind::Ec2Route(Ec2Route { ip: wanted.ip.clone(), region: wanted.region });
        let route = Resource::of_kind(tag.clone(), kind, nodes);
        let route = Resource { switchback: ip.switchback, policy: common(&ip.policy), ..route };
        let what = format!("routes to {} ({})", wanted.ip, counted(ip.addresses()));
        // It has no wish of its own where to be: it goes with what it depends on, in which order nobody sees.
        let changes = vec![
            Change::Create { resource: route, on },
            Change::Clear { tag: tag.clone() },
            Change::Depend { parent: tag.clone(), child: wanted.ip },
        ];
        let told = self.propose_checked(&member, &state, changes, wanted.force, out).await?;
        self.created(&member, &tag, &what, &told, wanted.wait, out).await
    }

    pub(in crate::api::backend) async fn create_ec2_eip(
        &self,
        wanted: CreateEc2Eip,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        if self.config.witness {
            return Err(ApiError::refused(
                "this node is a witness, which holds nothing: create it on another node",
            ));
        }
        let state = member.fresh().await?;
        let tag = match wanted.tag {
            Some(tag) => tag,
            None => default_tag(&wanted.address.to_string())?,
        };
        refuse_tag(&state, &tag)?;
        let others = others(&state, &wanted.extend_to, member.id)?;
        let nodes = settings(member.id, &others, wanted.priority, &wanted.devices, false)?;
        let kind = Kind::Ec2Eip(Ec2Eip { address: wanted.address, region: wanted.region });
        let eip = Resource::of_kind(tag.clone(), kind, nodes);
        let eip = Resource { switchback: wanted.switchback, ..eip };
        let changes = vec![Change::Create { resource: eip, on: member.id }];
        let told = self.propose_checked(&member, &state, changes, wanted.force, out).await?;
        let what = format!("Elastic IP {} on {}", wanted.address, wanted.devices.join(", "));
        self.created(&member, &tag, &what, &told, wanted.wait, out).await
    }

    async fn created(
        &self,
        member: &Member,
        tag: &Tag,
        what: &str,
        told: &str,
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        progress(out, format!("{tag} is created, for {what}{told}")).await;
        if !wait {
            return Ok(Answer::done(format!(
                "{tag} is created, for {what}, and being brought in service{told}"
            )));
        }
        let limit = self.limit_of_start();
        match self.wait(member, tag, limit, out, |state| self.started(state, tag, None)).await? {
            Answer::Done { message } => Ok(Answer::done(format!("{message}, for {what}{told}"))),
            other => Ok(other),
        }
    }
}

/// What a hierarchy has in common; the rest is each resource's own.
fn common(policy: &Policy) -> Policy {
    Policy {
        stickiness: policy.stickiness,
        maintenance: policy.maintenance,
        ignores_connectivity: policy.ignores_connectivity,
        ..Policy::default()
    }
}

fn default_tag(of: &str) -> Result<Tag> {
    format!("ec2-{of}").parse().map_err(|e| ApiError::usage(format!("{e}; give one with --tag")))
}

/// The IP resource, and where it is in service.
fn followed<'a>(state: &'a ClusterState, tag: &Tag) -> Result<(&'a Resource, NodeId)> {
    let resource = lookup::resource(state, tag)?;
    match unfit(state, resource) {
        Ok(on) => Ok((resource, on)),
        Err(why) => Err(ApiError::refused(format!("'{tag}' {why}; {}", offered(state)))),
    }
}

/// Where it is in service; else why routes cannot be led to it.
fn unfit(state: &ClusterState, resource: &Resource) -> std::result::Result<NodeId, String> {
    let tag = &resource.tag;
    let Some(ip) = resource.ip() else {
        return Err(format!("is of the kind {}, and routes lead to IP resources", resource.kind.name()));
    };
    if let Some(net) = ip.addresses.subnets().find(|net| net.addr().is_ipv6()) {
        return Err(format!("has addresses in {net}, and routes are for IPv4 only"));
    }
    if resource.nodes.values().any(|s| s.physical) {
        return Err("protects a node's own address, which never moves".to_owned());
    }
    let follows = |r: &&Resource| r.cloud().and_then(Cloud::followed) == Some(tag);
    if let Some(other) = state.resources.values().find(follows) {
        return Err(format!("has its routes seen to by '{}' already", other.tag));
    }
    let placement = state.placements.get(tag);
    let grant = placement.and_then(|p| p.grant).filter(|g| g.phase == Phase::InService);
    match grant.filter(|_| placement.is_some_and(|p| !p.deleting)) {
        Some(grant) => Ok(grant.owner),
        None => Err(format!("is not in service ('vipctl in-service {tag}' brings it in service)")),
    }
}

/// Names that are listed.
const NAMED: usize = 10;

/// Those that would do (row EC2-8).
fn offered(state: &ClusterState) -> String {
    let fit: Vec<&str> =
        state.resources.values().filter(|r| unfit(state, r).is_ok()).map(|r| r.tag.as_str()).collect();
    match fit.len() {
        0 => "there is no IPv4 resource in service that could have routes".to_owned(),
        n if n > NAMED => format!("choose one of {} and {} others", fit[..NAMED].join(", "), n - NAMED),
        _ => format!("choose one of {}", fit.join(", ")),
    }
}
