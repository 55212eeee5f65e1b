//! Methods of participants that the server calls for the application.

use crate::{
    api::{ApiErrorCode, ApiResponse},
    calls::error,
    host::Host,
    io::{CallId, Output},
    outside::Outside,
};
use bytes::Bytes;
use livekit_protocol as proto;
use parlor_model::{DataChannel, Now, ParticipantSid};
use parlor_signal::data::{self, RpcReply};
use std::time::{Duration, Instant};

/// Largest payload of a call, in bytes.
pub const RPC_PAYLOAD_BYTES_MAX: usize = 15 * 1024;
/// How long an answer is awaited unless the caller says.
pub const RPC_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that an answer is awaited.
pub const RPC_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Most calls of a room that are awaited at once.
pub const RPCS_MAX: usize = 1_024;

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct PendingRpc {
    pub(crate) call: CallId,
    pub(crate) to: ParticipantSid,
    pub(crate) due: Instant,
}

impl Host {
    pub(crate) fn perform_rpc(
        &mut self,
        cx: &mut Outside,
        now: Now,
        call: CallId,
        to: ParticipantSid,
        request: proto::PerformRpcRequest,
    ) {
        if self.rpcs.len() >= RPCS_MAX {
            let refusal = error(ApiErrorCode::ResourceExhausted, "too many calls");
            return cx.outputs.push_back(Output::Reply { call, result: Err(refusal).into() });
        }
        let timeout = match request.response_timeout_ms {
            0 => RPC_TIMEOUT,
            timeout_ms => Duration::from_millis(timeout_ms.into()).min(RPC_TIMEOUT_MAX),
        };
        let id = cx.uuid();
        let rpc = proto::RpcRequest {
            id: id.clone(),
            method: request.method,
            payload: request.payload,
            response_timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            version: 1,
            ..Default::default()
        };
        let packet = data::rpc_request(rpc, request.destination_identity);
        let due = now.instant + timeout;
        self.rpcs.insert(id, PendingRpc { call, to: to.clone(), due });
        self.send_data(cx, now, None, DataChannel::Reliable, packet, &[to]);
    }

    /// The answer to a call of the server that a packet is, with the call's id.
    pub(crate) fn rpc_reply(
        &self,
        from: &ParticipantSid,
        channel: DataChannel,
        packet: &Bytes,
    ) -> Option<(String, RpcReply)> {
        if self.rpcs.is_empty() || channel != DataChannel::Reliable {
            return None;
        }
        let reply = data::rpc_reply(packet);
        reply.filter(|(id, _)| self.rpcs.get(id).is_some_and(|pending| pending.to == *from))
    }

    /// Hands the answer of a participant to the caller.
    pub(crate) fn take_rpc_reply(&mut self, cx: &mut Outside, id: &str, reply: RpcReply) {
        let result = match reply {
            RpcReply::Ack => return,
            RpcReply::Payload(payload) => {
                Ok(ApiResponse::RpcPerformed(proto::PerformRpcResponse { payload }))
            }
            RpcReply::Error { code, message } => {
                Err(error(ApiErrorCode::Unknown, &format!("rpc error {code}: {message}")))
            }
        };
        self.end_rpc(cx, id, result);
    }

    fn end_rpc(
        &mut self,
        cx: &mut Outside,
        id: &str,
        result: Result<ApiResponse, crate::api::ApiError>,
    ) {
        if let Some(pending) = self.rpcs.remove(id) {
            cx.outputs.push_back(Output::Reply { call: pending.call, result: result.into() });
        }
    }

    /// Gives up calls whose answer is overdue, or whose participant is gone.
    pub(crate) fn expire_rpcs(&mut self, cx: &mut Outside, now: Instant) {
        let over: Vec<_> = self
            .rpcs
            .iter()
            .filter(|(_, rpc)| rpc.due <= now || !self.members.contains_key(&rpc.to))
            .map(|(id, rpc)| (id.clone(), rpc.due <= now))
            .collect();
        for (id, late) in over {
            let failure = match late {
                true => error(ApiErrorCode::Canceled, "response timeout"),
                false => error(ApiErrorCode::Unavailable, "recipient disconnected"),
            };
            self.end_rpc(cx, &id, Err(failure));
        }
    }
}
