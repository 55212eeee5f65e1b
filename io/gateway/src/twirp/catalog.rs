//! Methods of the Ingress and SIP services about what is registered.

use super::{Decode, Encoding, read};
use parlor_node::api::{ApiRequest, CatalogRequest as Request};
use prost::Message;
use serde::de::DeserializeOwned;

fn of<M: Message + Default + DeserializeOwned>(
    encoding: Encoding,
    body: &[u8],
    request: fn(M) -> Request,
) -> Option<ApiRequest> {
    read(encoding, body).map(request).map(ApiRequest::Catalog)
}

pub(super) fn ingress_method(method: &str) -> Option<Decode> {
    Some(match method {
        "CreateIngress" => |encoding, body| of(encoding, body, Request::CreateIngress),
        "UpdateIngress" => |encoding, body| of(encoding, body, Request::UpdateIngress),
        "ListIngress" => |encoding, body| of(encoding, body, Request::ListIngress),
        "DeleteIngress" => |encoding, body| of(encoding, body, Request::DeleteIngress),
        _ => return None,
    })
}

pub(super) fn sip_method(method: &str) -> Option<Decode> {
    Some(match method {
        "CreateSIPInboundTrunk" => |encoding, body| of(encoding, body, Request::CreateInboundTrunk),
        "CreateSIPOutboundTrunk" => {
            |encoding, body| of(encoding, body, Request::CreateOutboundTrunk)
        }
        "UpdateSIPInboundTrunk" => |encoding, body| of(encoding, body, Request::UpdateInboundTrunk),
        "UpdateSIPOutboundTrunk" => {
            |encoding, body| of(encoding, body, Request::UpdateOutboundTrunk)
        }
        "GetSIPInboundTrunk" => |encoding, body| of(encoding, body, Request::GetInboundTrunk),
        "GetSIPOutboundTrunk" => |encoding, body| of(encoding, body, Request::GetOutboundTrunk),
        "ListSIPInboundTrunk" => |encoding, body| of(encoding, body, Request::ListInboundTrunks),
        "ListSIPOutboundTrunk" => |encoding, body| of(encoding, body, Request::ListOutboundTrunks),
        "ListSIPTrunk" => |encoding, body| of(encoding, body, Request::ListTrunks),
        "DeleteSIPTrunk" => |encoding, body| of(encoding, body, Request::DeleteTrunk),
        "CreateSIPDispatchRule" => |encoding, body| of(encoding, body, Request::CreateRule),
        "UpdateSIPDispatchRule" => |encoding, body| of(encoding, body, Request::UpdateRule),
        "ListSIPDispatchRule" => |encoding, body| of(encoding, body, Request::ListRules),
        "DeleteSIPDispatchRule" => |encoding, body| of(encoding, body, Request::DeleteRule),
        _ => return None,
    })
}
