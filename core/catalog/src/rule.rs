//! SIP dispatch rules: which room a call is put into.

use crate::{
    Answer, Catalog, CatalogError, Draw, RULE, Response, check_room, invalid, listed,
    sip::{apply_list, check_media, normalized, set, shown, upgraded},
};
use livekit_protocol as proto;
use proto::{sip_dispatch_rule::Rule, update_sip_dispatch_rule_request::Action};

const NOT_FOUND: CatalogError =
    CatalogError::NotFound("requested sip dispatch rule does not exist");

impl Catalog {
    pub(crate) fn create_rule(
        &mut self,
        draw: &mut Draw<'_>,
        request: proto::CreateSipDispatchRuleRequest,
    ) -> Answer {
        let mut rule = info_of(request);
        if !rule.sip_dispatch_rule_id.is_empty() {
            return invalid("rule id must not be set");
        }
        check(&rule)?;
        self.check_rule_conflicts(&rule)?;
        check_room(&self.rules)?;
        rule.sip_dispatch_rule_id = draw("SDR_");
        self.put_rule(rule)
    }

    fn put_rule(&mut self, rule: proto::SipDispatchRuleInfo) -> Answer {
        self.keep(RULE, &rule.sip_dispatch_rule_id, &rule)?;
        self.rules.insert(rule.sip_dispatch_rule_id.clone(), rule.clone());
        Ok(Response::Rule(rule))
    }

    pub(crate) fn update_rule(&mut self, request: proto::UpdateSipDispatchRuleRequest) -> Answer {
        let id = request.sip_dispatch_rule_id;
        if id.is_empty() {
            return invalid("rule id must be set");
        }
        let Some(action) = request.action else {
            return invalid("missing or unsupported update action");
        };
        if let Action::Replace(rule) = &action {
            if !rule.sip_dispatch_rule_id.is_empty() && rule.sip_dispatch_rule_id != id {
                return invalid("rule id in the info must be empty or match the id in the update");
            }
            check(rule)?;
        }
        let known = self.rules.get(&id).ok_or(NOT_FOUND)?.clone();
        let rule = match action {
            Action::Replace(rule) => {
                proto::SipDispatchRuleInfo { sip_dispatch_rule_id: id, ..rule }
            }
            Action::Update(update) => {
                let mut rule = known;
                check_media(update.media.as_ref())?;
                apply_list(&mut rule.trunk_ids, update.trunk_ids.as_ref())?;
                rule.rule = update.rule.or(rule.rule);
                set(&mut rule.name, update.name);
                set(&mut rule.metadata, update.metadata);
                for (key, value) in update.attributes {
                    match value.as_str() {
                        "" => drop(rule.attributes.remove(&key)),
                        _ => drop(rule.attributes.insert(key, value)),
                    }
                }
                #[allow(deprecated)]
                {
                    set(&mut rule.media_encryption, update.media_encryption);
                    rule.media = upgraded(update.media.or(rule.media), rule.media_encryption);
                }
                check(&rule)?;
                rule
            }
        };
        self.check_rule_conflicts(&rule)?;
        self.put_rule(rule)
    }

    pub(crate) fn list_rules(&self, request: &proto::ListSipDispatchRuleRequest) -> Response {
        let trunks = &request.trunk_ids;
        let fits = |rule: &proto::SipDispatchRuleInfo| {
            trunks.is_empty()
                || rule.trunk_ids.is_empty()
                || rule.trunk_ids.iter().any(|id| trunks.contains(id))
        };
        let (ids, page) = (&request.dispatch_rule_ids, request.page.as_ref());
        let items = listed(&self.rules, ids, page, fits);
        Response::Rules(proto::ListSipDispatchRuleResponse { items })
    }

    pub(crate) fn delete_rule(&mut self, request: &proto::DeleteSipDispatchRuleRequest) -> Answer {
        let id = &request.sip_dispatch_rule_id;
        if id.is_empty() {
            return invalid("dispatch rule ID is required");
        }
        let rule = self.rules.remove(id).ok_or(NOT_FOUND)?;
        self.forget(RULE, id);
        Ok(Response::Rule(rule))
    }

    /// No call may fit two rules: same trunk, numbers and PIN.
    fn check_rule_conflicts(&self, new: &proto::SipDispatchRuleInfo) -> Result<(), CatalogError> {
        let any = |list: &[String]| -> Vec<String> {
            if list.is_empty() { vec![String::new()] } else { list.to_vec() }
        };
        let numbers = |list: &[String]| -> Vec<String> {
            any(list).iter().map(|number| normalized(number)).collect()
        };
        let meet = |a: &[String], b: &[String]| a.iter().any(|one| b.contains(one));
        let pin_of_new = pin(new)?;
        for known in self.rules.values() {
            let conflicts = known.sip_dispatch_rule_id != new.sip_dispatch_rule_id
                && pin(known).is_ok_and(|pin| pin == pin_of_new)
                && meet(&any(&new.trunk_ids), &any(&known.trunk_ids))
                && meet(&numbers(&new.inbound_numbers), &numbers(&known.inbound_numbers))
                && meet(&numbers(&new.numbers), &numbers(&known.numbers));
            if conflicts {
                let id = shown(&known.sip_dispatch_rule_id);
                let name = if known.name.is_empty() { "<blank name>" } else { &known.name };
                return invalid(format!(
                    "Dispatch rule for the same trunk, inbound number, number, and PIN combination already exists in dispatch rule {id:?} {name:?}"
                ));
            }
        }
        Ok(())
    }
}

/// A rule as it is made today, whether it is asked for so or in the older form.
fn info_of(request: proto::CreateSipDispatchRuleRequest) -> proto::SipDispatchRuleInfo {
    #[allow(deprecated)]
    match request.dispatch_rule {
        Some(rule) => proto::SipDispatchRuleInfo {
            media: upgraded(rule.media.clone(), rule.media_encryption),
            ..rule
        },
        None => proto::SipDispatchRuleInfo {
            rule: request.rule,
            trunk_ids: request.trunk_ids,
            inbound_numbers: request.inbound_numbers,
            hide_phone_number: request.hide_phone_number,
            name: request.name,
            metadata: request.metadata,
            attributes: request.attributes,
            room_preset: request.room_preset,
            room_config: request.room_config,
            ..Default::default()
        },
    }
}

fn check(rule: &proto::SipDispatchRuleInfo) -> Result<(), CatalogError> {
    if rule.rule.is_none() {
        return invalid("missing rule");
    }
    check_media(rule.media.as_ref())
}

fn pin(rule: &proto::SipDispatchRuleInfo) -> Result<&str, CatalogError> {
    match rule.rule.as_ref().and_then(|rule| rule.rule.as_ref()) {
        Some(Rule::DispatchRuleDirect(rule)) => Ok(&rule.pin),
        Some(Rule::DispatchRuleIndividual(rule)) => Ok(&rule.pin),
        Some(Rule::DispatchRuleCallee(rule)) => Ok(&rule.pin),
        None => invalid("twirp error unknown: unsupported SIP Dispatch Rule: <nil>"),
    }
}
