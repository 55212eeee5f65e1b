//! Data that a participant leaves for others to get, under keys, as long as it is in the room.

use crate::{Limits, config::exceeds, host::Host, outside::Outside};
use livekit_protocol as proto;
use parlor_model::ParticipantSid;
use parlor_signal::response;
use prost::Message as _;
use proto::{data_blob_key::Key, request_response::Reason, signal_response::Message};
use std::collections::BTreeMap;

/// A refusal and its words.
type Refused = (Reason, &'static str);

const NO_KEY: Refused = (Reason::InvalidRequest, "data blob key is required");

/// The blobs of one participant, by the encoding of their key.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct DataBlobs(BTreeMap<Vec<u8>, proto::DataBlob>);

impl DataBlobs {
    /// Stores a blob in place of the one under its key, if there is room for it.
    fn store(&mut self, blob: proto::DataBlob, limits: &Limits) -> Result<(), Refused> {
        let key = blob.key.as_ref().filter(|key| has_text(key)).ok_or(NO_KEY)?;
        if exceeds(key_bytes(key), limits.data_blob_key_bytes) {
            return Err((Reason::LimitExceeded, "data blob key exceeds length limit"));
        }
        let encoded = key.encode_to_vec();
        let others = self.0.iter().filter(|(other, _)| **other != encoded);
        let held: usize = others.map(|(_, other)| bytes(other)).sum();
        if held + bytes(&blob) > limits.data_blobs_bytes {
            return Err((Reason::LimitExceeded, "data blobs exceed size limit"));
        }
        self.0.insert(encoded, blob);
        Ok(())
    }
}

fn has_text(key: &proto::DataBlobKey) -> bool {
    match &key.key {
        Some(Key::Generic(text)) => !text.is_empty(),
        Some(Key::SchemaId(schema)) => schema.encoded_len() > 0,
        None => false,
    }
}

fn key_bytes(key: &proto::DataBlobKey) -> usize {
    match &key.key {
        Some(Key::Generic(text)) => text.len(),
        Some(Key::SchemaId(schema)) => schema.encoded_len(),
        None => 0,
    }
}

fn bytes(blob: &proto::DataBlob) -> usize {
    blob.key.as_ref().map_or(0, key_bytes) + blob.contents.len()
}

impl Host {
    pub(crate) fn store_data_blob(
        &mut self,
        cx: &mut Outside,
        sid: &ParticipantSid,
        request: proto::StoreDataBlobRequest,
    ) {
        let id = request.request_id;
        let blob = request.blob.unwrap_or_default();
        let key = blob.key.clone();
        let answer = match self.try_store(cx, sid, blob) {
            Ok(()) => {
                Message::StoreDataBlobResponse(proto::StoreDataBlobResponse { request_id: id, key })
            }
            Err((reason, text)) => response::request_response(id, reason, text, None),
        };
        self.send(cx, sid, answer);
    }

    fn try_store(
        &mut self,
        cx: &Outside,
        sid: &ParticipantSid,
        blob: proto::DataBlob,
    ) -> Result<(), Refused> {
        let limits = &cx.config.limits;
        if limits.data_blobs_bytes == 0 {
            return Err((Reason::NotAllowed, "data blob not enabled"));
        }
        let may = self.room.participant(sid).is_some_and(|p| p.info.permissions.can_publish_data);
        let member = self.members.get_mut(sid).filter(|_| may);
        let member =
            member.ok_or((Reason::NotAllowed, "does not have permission to store data"))?;
        member.data_blobs.store(blob, limits)
    }

    pub(crate) fn get_data_blob(
        &mut self,
        cx: &mut Outside,
        sid: &ParticipantSid,
        request: proto::GetDataBlobRequest,
    ) {
        let id = request.request_id;
        let answer = match self.find_blob(sid, &request) {
            Ok(blob) => Message::GetDataBlobResponse(proto::GetDataBlobResponse {
                request_id: id,
                blob: Some(blob),
            }),
            Err((reason, text)) => response::request_response(id, reason, text, None),
        };
        self.send(cx, sid, answer);
    }

    /// A blob of somebody whom the asking participant can see.
    fn find_blob(
        &self,
        asking: &ParticipantSid,
        request: &proto::GetDataBlobRequest,
    ) -> Result<proto::DataBlob, Refused> {
        let key = request.key.as_ref().filter(|key| has_text(key)).ok_or(NO_KEY)?;
        let owner = self.participant_by_identity(&request.participant_identity);
        let owner = owner.filter(|(owner, sid)| !owner.info.permissions.hidden || *sid == asking);
        let (_, owner) = owner.ok_or((Reason::NotFound, "participant not found"))?;
        let member = self.members.get(owner).ok_or((Reason::NotFound, "participant not found"))?;
        let blob = member.data_blobs.0.get(&key.encode_to_vec()).cloned();
        blob.ok_or((Reason::NotFound, "data blob not found"))
    }
}
