//! What applications register and services look up: ingress, SIP trunks, SIP dispatch rules.
//!
//! A [`Catalog`] is a plain value. [`Catalog::handle`] takes a [`Request`] of LiveKit's Ingress
//! or SIP service, checks it as LiveKit does, and answers; [`Catalog::poll_change`] says what has
//! to be kept for the next start, and [`Catalog::restore`] takes it back. It neither stores nor
//! serves anything, draws no ids and knows no tokens: who may ask is decided before.
//!
//! ```
//! use livekit_protocol as proto;
//! use parlor_catalog::{Catalog, Change, Request, Response};
//!
//! let mut catalog = Catalog::default();
//! let mut draw = |prefix: &str| format!("{prefix}1");
//! let rule = proto::SipDispatchRule {
//!     rule: Some(proto::sip_dispatch_rule::Rule::DispatchRuleDirect(Default::default())),
//! };
//! let create = proto::CreateSipDispatchRuleRequest {
//!     dispatch_rule: Some(proto::SipDispatchRuleInfo { rule: Some(rule), ..Default::default() }),
//!     ..Default::default()
//! };
//! let Ok(Response::Rule(made)) = catalog.handle(&mut draw, Request::CreateRule(create)) else {
//!     panic!("there is no other rule");
//! };
//! assert_eq!(made.sip_dispatch_rule_id, "SDR_1");
//! let Some(Change::Keep { kind, id, value }) = catalog.poll_change() else { panic!("to be kept") };
//! let mut later = Catalog::default();
//! assert!(later.restore(kind, &id, &value));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ingress;
mod rule;
mod sip;
mod trunk;

#[cfg(test)]
mod tests;

use livekit_protocol as proto;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};

/// Most objects of one kind.
pub const OBJECTS_MAX: usize = 10_000;
/// Most objects that one answer lists where the caller asks for pages.
pub const PAGE_MAX: usize = 1_000;

/// The kinds of objects, as they are kept.
pub const KINDS: [&str; 4] = [INGRESS, INBOUND, OUTBOUND, RULE];
const INGRESS: &str = "ingress";
const INBOUND: &str = "sip inbound trunk";
const OUTBOUND: &str = "sip outbound trunk";
const RULE: &str = "sip dispatch rule";

/// A call of the Ingress or SIP service.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)] // moved once a call, never stored
pub enum Request {
    CreateIngress(proto::CreateIngressRequest),
    UpdateIngress(proto::UpdateIngressRequest),
    ListIngress(proto::ListIngressRequest),
    DeleteIngress(proto::DeleteIngressRequest),
    CreateInboundTrunk(proto::CreateSipInboundTrunkRequest),
    CreateOutboundTrunk(proto::CreateSipOutboundTrunkRequest),
    UpdateInboundTrunk(proto::UpdateSipInboundTrunkRequest),
    UpdateOutboundTrunk(proto::UpdateSipOutboundTrunkRequest),
    GetInboundTrunk(proto::GetSipInboundTrunkRequest),
    GetOutboundTrunk(proto::GetSipOutboundTrunkRequest),
    ListInboundTrunks(proto::ListSipInboundTrunkRequest),
    ListOutboundTrunks(proto::ListSipOutboundTrunkRequest),
    ListTrunks(proto::ListSipTrunkRequest),
    DeleteTrunk(proto::DeleteSipTrunkRequest),
    CreateRule(proto::CreateSipDispatchRuleRequest),
    UpdateRule(proto::UpdateSipDispatchRuleRequest),
    ListRules(proto::ListSipDispatchRuleRequest),
    DeleteRule(proto::DeleteSipDispatchRuleRequest),
}

impl Request {
    /// Whether it is of the SIP service; else it is of the Ingress service.
    pub fn is_sip(&self) -> bool {
        !matches!(
            self,
            Request::CreateIngress(_)
                | Request::UpdateIngress(_)
                | Request::ListIngress(_)
                | Request::DeleteIngress(_)
        )
    }
}

/// What a [`Request`] brought.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, clippy::large_enum_variant, deprecated)]
pub enum Response {
    Ingress(proto::IngressInfo),
    Ingresses(proto::ListIngressResponse),
    InboundTrunk(proto::SipInboundTrunkInfo),
    OutboundTrunk(proto::SipOutboundTrunkInfo),
    GotInboundTrunk(proto::GetSipInboundTrunkResponse),
    GotOutboundTrunk(proto::GetSipOutboundTrunkResponse),
    InboundTrunks(proto::ListSipInboundTrunkResponse),
    OutboundTrunks(proto::ListSipOutboundTrunkResponse),
    Trunk(proto::SipTrunkInfo),
    Trunks(proto::ListSipTrunkResponse),
    Rule(proto::SipDispatchRuleInfo),
    Rules(proto::ListSipDispatchRuleResponse),
}

impl Response {
    /// Name and bytes of its protobuf message.
    pub fn encode(&self) -> (&'static str, Vec<u8>) {
        match self {
            Response::Ingress(message) => ("IngressInfo", message.encode_to_vec()),
            Response::Ingresses(message) => ("ListIngressResponse", message.encode_to_vec()),
            Response::InboundTrunk(message) => ("SIPInboundTrunkInfo", message.encode_to_vec()),
            Response::OutboundTrunk(message) => ("SIPOutboundTrunkInfo", message.encode_to_vec()),
            Response::GotInboundTrunk(message) => {
                ("GetSIPInboundTrunkResponse", message.encode_to_vec())
            }
            Response::GotOutboundTrunk(message) => {
                ("GetSIPOutboundTrunkResponse", message.encode_to_vec())
            }
            Response::InboundTrunks(message) => {
                ("ListSIPInboundTrunkResponse", message.encode_to_vec())
            }
            Response::OutboundTrunks(message) => {
                ("ListSIPOutboundTrunkResponse", message.encode_to_vec())
            }
            Response::Trunk(message) => ("SIPTrunkInfo", message.encode_to_vec()),
            Response::Trunks(message) => ("ListSIPTrunkResponse", message.encode_to_vec()),
            Response::Rule(message) => ("SIPDispatchRuleInfo", message.encode_to_vec()),
            Response::Rules(message) => ("ListSIPDispatchRuleResponse", message.encode_to_vec()),
        }
    }
}

/// Why a call was refused; the text is for the caller.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CatalogError {
    /// The request is not admissible.
    #[error("{0}")]
    Invalid(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(&'static str),
    /// A service would have to do it, and there is none.
    #[error("twirp error unknown: no response from servers")]
    NoService,
    /// There are [`OBJECTS_MAX`] of the kind.
    #[error("too many objects of this kind")]
    TooMany,
}

pub(crate) fn invalid<T>(text: impl Into<String>) -> Result<T, CatalogError> {
    Err(CatalogError::Invalid(text.into()))
}

/// What has to be kept, or forgotten, for the next start.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Change {
    Keep { kind: &'static str, id: String, value: Vec<u8> },
    Forget { kind: &'static str, id: String },
}

/// Where media for an ingress is sent to, as applications are told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CatalogConfig {
    /// `ingress.rtmp_base_url`.
    pub rtmp_base_url: String,
    /// `ingress.whip_base_url`.
    pub whip_base_url: String,
}

/// The registered objects. See the crate's page.
#[derive(Debug, Default)]
pub struct Catalog {
    config: CatalogConfig,
    ingress: BTreeMap<String, proto::IngressInfo>,
    inbound: BTreeMap<String, proto::SipInboundTrunkInfo>,
    outbound: BTreeMap<String, proto::SipOutboundTrunkInfo>,
    rules: BTreeMap<String, proto::SipDispatchRuleInfo>,
    changes: VecDeque<Change>,
}

type Answer = Result<Response, CatalogError>;
/// Draws an id with a prefix.
type Draw<'a> = dyn FnMut(&str) -> String + 'a;

impl Catalog {
    /// An empty catalog.
    pub fn new(config: CatalogConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Answers a call. `draw` gives an id with the prefix that it is given.
    pub fn handle(&mut self, draw: &mut Draw<'_>, request: Request) -> Answer {
        match request {
            Request::CreateIngress(request) => self.create_ingress(draw, request),
            Request::UpdateIngress(request) => self.update_ingress(request),
            Request::ListIngress(request) => self.list_ingress(&request),
            Request::DeleteIngress(request) => self.delete_ingress(&request),
            Request::CreateInboundTrunk(request) => self.create_inbound(draw, request),
            Request::CreateOutboundTrunk(request) => self.create_outbound(draw, request),
            Request::UpdateInboundTrunk(request) => self.update_inbound(request),
            Request::UpdateOutboundTrunk(request) => self.update_outbound(request),
            Request::GetInboundTrunk(request) => self.get_inbound(&request),
            Request::GetOutboundTrunk(request) => self.get_outbound(&request),
            Request::ListInboundTrunks(request) => Ok(self.list_inbound(&request)),
            Request::ListOutboundTrunks(request) => Ok(self.list_outbound(&request)),
            Request::ListTrunks(request) => Ok(self.list_trunks(&request)),
            Request::DeleteTrunk(request) => self.delete_trunk(request),
            Request::CreateRule(request) => self.create_rule(draw, request),
            Request::UpdateRule(request) => self.update_rule(request),
            Request::ListRules(request) => Ok(self.list_rules(&request)),
            Request::DeleteRule(request) => self.delete_rule(&request),
        }
    }

    /// What has to be kept, oldest first. Before that, the answer is not to be given.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Takes back what was kept. `false` if it cannot be read.
    pub fn restore(&mut self, kind: &str, id: &str, value: &[u8]) -> bool {
        fn read<M: serde::de::DeserializeOwned>(
            into: &mut BTreeMap<String, M>,
            id: &str,
            value: &[u8],
        ) -> bool {
            let read = serde_json::from_slice(value);
            read.map(|object| drop(into.insert(id.to_owned(), object))).is_ok()
        }
        match kind {
            INGRESS => read(&mut self.ingress, id, value),
            INBOUND => read(&mut self.inbound, id, value),
            OUTBOUND => read(&mut self.outbound, id, value),
            RULE => read(&mut self.rules, id, value),
            _ => false,
        }
    }

    /// Has an object kept. One with a value of a later protocol, which could not be read again,
    /// is refused.
    fn keep(
        &mut self,
        kind: &'static str,
        id: &str,
        object: &impl serde::Serialize,
    ) -> Result<(), CatalogError> {
        // By way of a value, whose maps are sorted.
        let value = serde_json::to_value(object).or_else(|_| invalid("unknown value"))?;
        let value = value.to_string().into_bytes();
        self.changes.push_back(Change::Keep { kind, id: id.to_owned(), value });
        Ok(())
    }

    fn forget(&mut self, kind: &'static str, id: &str) {
        self.changes.push_back(Change::Forget { kind, id: id.to_owned() });
    }
}

fn check_room<T>(objects: &BTreeMap<String, T>) -> Result<(), CatalogError> {
    if objects.len() < OBJECTS_MAX { Ok(()) } else { Err(CatalogError::TooMany) }
}

/// The objects that a list asks for: in the order of `ids` where these are given, with an empty
/// one for each that is missing, else those behind the page's cursor.
fn listed<T: Clone + Default>(
    objects: &BTreeMap<String, T>,
    ids: &[String],
    page: Option<&proto::Pagination>,
    matches: impl Fn(&T) -> bool,
) -> Vec<T> {
    if !ids.is_empty() {
        let found = ids.iter().map(|id| objects.get(id).cloned());
        let fits = |found: &Option<T>| found.as_ref().is_none_or(&matches);
        return found.filter(fits).map(Option::unwrap_or_default).collect();
    }
    let after = page.map_or("", |page| page.after_id.as_str());
    let limit = page.map_or(usize::MAX, |page| match usize::try_from(page.limit) {
        Ok(limit @ 1..PAGE_MAX) => limit,
        _ => PAGE_MAX,
    });
    let behind = objects.iter().filter(|(id, _)| id.as_str() > after).map(|(_, object)| object);
    behind.filter(|object| matches(object)).take(limit).cloned().collect()
}
