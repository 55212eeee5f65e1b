//! SIP trunks: where calls come from and go to.

use crate::{
    Answer, Catalog, CatalogError, Draw, INBOUND, OUTBOUND, Response, check_room, invalid, listed,
    sip::{apply_list, check_headers, check_host, check_media, normalized, set, shown, upgraded},
};
use livekit_protocol as proto;
use proto::{update_sip_inbound_trunk_request, update_sip_outbound_trunk_request};
use std::collections::BTreeMap;

const NOT_FOUND: CatalogError = CatalogError::NotFound("requested sip trunk does not exist");
const UNNAMED: &str = "trunk id must be set";
const UNNAMED_GET: &str = "trunk ID is required";
const OTHER_ID: &str = "trunk id in the info must be empty or match the id in the update";
const NO_ACTION: &str = "missing or unsupported update action";

/// What an update names, and what it asks for.
fn named<A>(id: String, action: Option<A>) -> Result<(String, A), CatalogError> {
    if id.is_empty() {
        return invalid(UNNAMED);
    }
    let Some(action) = action else { return invalid(NO_ACTION) };
    Ok((id, action))
}

/// A trunk that takes the place of another may leave out its id, or repeat it.
fn check_replaced(given: &str, id: &str) -> Result<(), CatalogError> {
    if given.is_empty() || given == id { Ok(()) } else { invalid(OTHER_ID) }
}

impl Catalog {
    pub(crate) fn create_inbound(
        &mut self,
        draw: &mut Draw<'_>,
        request: proto::CreateSipInboundTrunkRequest,
    ) -> Answer {
        let Some(mut trunk) = request.trunk else { return invalid("missing trunk") };
        if !trunk.sip_trunk_id.is_empty() {
            return invalid("trunk id must not be set");
        }
        check_inbound(&trunk)?;
        self.check_conflicts(&trunk)?;
        check_room(&self.inbound)?;
        trunk.sip_trunk_id = draw("ST_");
        self.put_inbound(trunk)
    }

    pub(crate) fn create_outbound(
        &mut self,
        draw: &mut Draw<'_>,
        request: proto::CreateSipOutboundTrunkRequest,
    ) -> Answer {
        let Some(mut trunk) = request.trunk else { return invalid("missing trunk") };
        if !trunk.sip_trunk_id.is_empty() {
            return invalid("trunk id must not be set");
        }
        check_outbound(&trunk)?;
        check_room(&self.outbound)?;
        trunk.sip_trunk_id = draw("ST_");
        self.put_outbound(trunk)
    }

    fn put_inbound(&mut self, trunk: proto::SipInboundTrunkInfo) -> Answer {
        self.keep(INBOUND, &trunk.sip_trunk_id, &trunk)?;
        self.inbound.insert(trunk.sip_trunk_id.clone(), trunk.clone());
        Ok(Response::InboundTrunk(trunk))
    }

    fn put_outbound(&mut self, trunk: proto::SipOutboundTrunkInfo) -> Answer {
        self.keep(OUTBOUND, &trunk.sip_trunk_id, &trunk)?;
        self.outbound.insert(trunk.sip_trunk_id.clone(), trunk.clone());
        Ok(Response::OutboundTrunk(trunk))
    }

    pub(crate) fn update_inbound(
        &mut self,
        request: proto::UpdateSipInboundTrunkRequest,
    ) -> Answer {
        use update_sip_inbound_trunk_request::Action;
        let (id, action) = named(request.sip_trunk_id, request.action)?;
        if let Action::Replace(trunk) = &action {
            check_replaced(&trunk.sip_trunk_id, &id)?;
            check_inbound(trunk)?;
        }
        let known = self.inbound.get(&id).ok_or(NOT_FOUND)?.clone();
        let trunk = match action {
            Action::Replace(trunk) => proto::SipInboundTrunkInfo { sip_trunk_id: id, ..trunk },
            Action::Update(update) => {
                let mut trunk = known;
                check_media(update.media.as_ref())?;
                apply_list(&mut trunk.numbers, update.numbers.as_ref())?;
                apply_list(&mut trunk.allowed_addresses, update.allowed_addresses.as_ref())?;
                apply_list(&mut trunk.allowed_numbers, update.allowed_numbers.as_ref())?;
                set(&mut trunk.auth_username, update.auth_username);
                set(&mut trunk.auth_password, update.auth_password);
                set(&mut trunk.auth_realm, update.auth_realm);
                set(&mut trunk.name, update.name);
                set(&mut trunk.metadata, update.metadata);
                #[allow(deprecated)]
                {
                    set(&mut trunk.media_encryption, update.media_encryption);
                    trunk.media = upgraded(update.media.or(trunk.media), trunk.media_encryption);
                }
                check_inbound(&trunk)?;
                trunk
            }
        };
        self.check_conflicts(&trunk)?;
        self.put_inbound(trunk)
    }

    pub(crate) fn update_outbound(
        &mut self,
        request: proto::UpdateSipOutboundTrunkRequest,
    ) -> Answer {
        use update_sip_outbound_trunk_request::Action;
        let (id, action) = named(request.sip_trunk_id, request.action)?;
        if let Action::Replace(trunk) = &action {
            check_replaced(&trunk.sip_trunk_id, &id)?;
            check_outbound(trunk)?;
        }
        let known = self.outbound.get(&id).ok_or(NOT_FOUND)?.clone();
        let trunk = match action {
            Action::Replace(trunk) => proto::SipOutboundTrunkInfo { sip_trunk_id: id, ..trunk },
            Action::Update(update) => {
                let mut trunk = known;
                check_media(update.media.as_ref())?;
                apply_list(&mut trunk.numbers, update.numbers.as_ref())?;
                set(&mut trunk.address, update.address);
                set(&mut trunk.transport, update.transport);
                set(&mut trunk.destination_country, update.destination_country);
                set(&mut trunk.auth_username, update.auth_username);
                set(&mut trunk.auth_password, update.auth_password);
                set(&mut trunk.name, update.name);
                set(&mut trunk.metadata, update.metadata);
                set(&mut trunk.from_host, update.from_host);
                #[allow(deprecated)]
                {
                    set(&mut trunk.media_encryption, update.media_encryption);
                    trunk.media = upgraded(update.media.or(trunk.media), trunk.media_encryption);
                }
                check_outbound(&trunk)?;
                trunk
            }
        };
        self.put_outbound(trunk)
    }

    pub(crate) fn get_inbound(&self, request: &proto::GetSipInboundTrunkRequest) -> Answer {
        if request.sip_trunk_id.is_empty() {
            return invalid(UNNAMED_GET);
        }
        let trunk = Some(self.inbound.get(&request.sip_trunk_id).ok_or(NOT_FOUND)?.clone());
        Ok(Response::GotInboundTrunk(proto::GetSipInboundTrunkResponse { trunk }))
    }

    pub(crate) fn get_outbound(&self, request: &proto::GetSipOutboundTrunkRequest) -> Answer {
        if request.sip_trunk_id.is_empty() {
            return invalid(UNNAMED_GET);
        }
        let trunk = Some(self.outbound.get(&request.sip_trunk_id).ok_or(NOT_FOUND)?.clone());
        Ok(Response::GotOutboundTrunk(proto::GetSipOutboundTrunkResponse { trunk }))
    }

    pub(crate) fn list_inbound(&self, request: &proto::ListSipInboundTrunkRequest) -> Response {
        let (ids, page) = (&request.trunk_ids, request.page.as_ref());
        let fits = |trunk: &proto::SipInboundTrunkInfo| {
            serves(&trunk.numbers, &request.numbers, normalized)
        };
        let items = listed(&self.inbound, ids, page, fits);
        Response::InboundTrunks(proto::ListSipInboundTrunkResponse { items })
    }

    pub(crate) fn list_outbound(&self, request: &proto::ListSipOutboundTrunkRequest) -> Response {
        let (ids, page) = (&request.trunk_ids, request.page.as_ref());
        let fits = |trunk: &proto::SipOutboundTrunkInfo| {
            serves(&trunk.numbers, &request.numbers, str::to_owned)
        };
        let items = listed(&self.outbound, ids, page, fits);
        Response::OutboundTrunks(proto::ListSipOutboundTrunkResponse { items })
    }

    /// Both kinds in the form that older clients know.
    #[allow(deprecated)]
    pub(crate) fn list_trunks(&self, request: &proto::ListSipTrunkRequest) -> Response {
        use proto::sip_trunk_info::TrunkKind;
        let number = |numbers: &[String]| numbers.first().cloned().unwrap_or_default();
        let inbound = self.inbound.values().map(|trunk| proto::SipTrunkInfo {
            sip_trunk_id: trunk.sip_trunk_id.clone(),
            kind: TrunkKind::TrunkInbound.into(),
            name: trunk.name.clone(),
            metadata: trunk.metadata.clone(),
            outbound_number: number(&trunk.numbers),
            inbound_addresses: trunk.allowed_addresses.clone(),
            inbound_numbers: trunk.allowed_numbers.clone(),
            inbound_username: trunk.auth_username.clone(),
            inbound_password: trunk.auth_password.clone(),
            ..Default::default()
        });
        let outbound = self.outbound.values().map(|trunk| proto::SipTrunkInfo {
            sip_trunk_id: trunk.sip_trunk_id.clone(),
            kind: TrunkKind::TrunkOutbound.into(),
            name: trunk.name.clone(),
            metadata: trunk.metadata.clone(),
            outbound_address: trunk.address.clone(),
            transport: trunk.transport,
            outbound_number: number(&trunk.numbers),
            outbound_username: trunk.auth_username.clone(),
            outbound_password: trunk.auth_password.clone(),
            ..Default::default()
        });
        let both = inbound.chain(outbound).map(|trunk| (trunk.sip_trunk_id.clone(), trunk));
        let both: BTreeMap<String, proto::SipTrunkInfo> = both.collect();
        let items = listed(&both, &[], request.page.as_ref(), |_| true);
        Response::Trunks(proto::ListSipTrunkResponse { items })
    }

    /// One that does not exist is gone already.
    pub(crate) fn delete_trunk(&mut self, request: proto::DeleteSipTrunkRequest) -> Answer {
        let sip_trunk_id = request.sip_trunk_id;
        if sip_trunk_id.is_empty() {
            return invalid(UNNAMED_GET);
        }
        if self.inbound.remove(&sip_trunk_id).is_some() {
            self.forget(INBOUND, &sip_trunk_id);
        }
        if self.outbound.remove(&sip_trunk_id).is_some() {
            self.forget(OUTBOUND, &sip_trunk_id);
        }
        #[allow(deprecated)]
        let trunk = proto::SipTrunkInfo { sip_trunk_id, ..Default::default() };
        Ok(Response::Trunk(trunk))
    }

    /// No call may fit two trunks: same number called, same or any number calling.
    fn check_conflicts(&self, new: &proto::SipInboundTrunkInfo) -> Result<(), CatalogError> {
        let any = |numbers: &[String]| -> Vec<String> {
            match numbers {
                [] => vec![String::new()],
                numbers => numbers.iter().map(|number| normalized(number)).collect(),
            }
        };
        let (called, calling) = (any(&new.numbers), any(&new.allowed_numbers));
        let others = self.inbound.values().filter(|known| known.sip_trunk_id != new.sip_trunk_id);
        for known in others {
            let (theirs, allowed) = (any(&known.numbers), any(&known.allowed_numbers));
            let shares_called = called.iter().any(|number| theirs.contains(number));
            let shared = calling.iter().find(|number| allowed.contains(number));
            let Some(shared) = shared.filter(|_| shares_called) else { continue };
            let (one, other) = (shown(&new.sip_trunk_id), shown(&known.sip_trunk_id));
            let numbers: Vec<String> =
                new.numbers.iter().map(|number| format!("{number:?}")).collect();
            let numbers = if numbers.is_empty() { "<any>".to_owned() } else { numbers.join(", ") };
            let how = match shared.as_str() {
                "" => "without AllowedNumbers set".to_owned(),
                shared => format!("and AllowedNumber {shared:?}"),
            };
            return invalid(format!(
                "Conflicting inbound SIP Trunks: {one:?} and {other:?}, using the same number(s) {numbers} {how}"
            ));
        }
        Ok(())
    }
}

/// Whether a trunk has one of the numbers; a trunk for any number has each.
fn serves(numbers: &[String], asked: &[String], form: impl Fn(&str) -> String) -> bool {
    asked.is_empty()
        || numbers.is_empty()
        || numbers.iter().any(|number| asked.iter().any(|asked| form(asked) == form(number)))
}

fn check_inbound(trunk: &proto::SipInboundTrunkInfo) -> Result<(), CatalogError> {
    let has_auth = !trunk.auth_username.is_empty() || !trunk.auth_password.is_empty();
    if !has_auth && trunk.allowed_addresses.is_empty() && trunk.numbers.is_empty() {
        return invalid(
            "for security, one of the fields must be set: AuthUsername+AuthPassword, AllowedAddresses or Numbers",
        );
    }
    check_media(trunk.media.as_ref())?;
    check_headers(&trunk.headers, &trunk.attributes_to_headers, &trunk.headers_to_attributes)
}

fn check_outbound(trunk: &proto::SipOutboundTrunkInfo) -> Result<(), CatalogError> {
    if trunk.numbers.is_empty() {
        return invalid("no trunk numbers specified");
    }
    if trunk.address.is_empty() {
        return invalid("no outbound address specified");
    }
    check_host(&trunk.address, "trunk address")?;
    check_host(&trunk.from_host, "from_host")?;
    check_headers(&trunk.headers, &trunk.attributes_to_headers, &trunk.headers_to_attributes)?;
    check_media(trunk.media.as_ref())
}
