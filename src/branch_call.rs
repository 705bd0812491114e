//! Who calls: the identity that a coordinator adds to every call of a branch.
//!
//! A service reads it from the query of an HTTP call ([`BranchCall::from_query`]) or the metadata of a gRPC call
//! ([`BranchCall::from_headers`]), and gives it to a barrier, which uses it to let each call take effect once. Names and
//! spellings are dtm's, so that services in other languages may serve the same transaction.

use http::HeaderMap;

/// The ops that a branch is called with; a workflow's callback has the workflow's name instead.
pub mod op {
    pub const ACTION: &str = "action";
    pub const COMPENSATE: &str = "compensate";
    pub const TRY: &str = "try";
    pub const CONFIRM: &str = "confirm";
    pub const CANCEL: &str = "cancel";
    pub const COMMIT: &str = "commit";
    pub const ROLLBACK: &str = "rollback";
    /// The check-back of a two-phase message, and its local part.
    pub const MSG: &str = "msg";
}

/// One call of one branch of one global transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BranchCall {
    /// `msg`, `saga`, `tcc`, `xa` or `workflow`.
    pub trans_type: String,
    pub gid: String,
    /// Two digits a level: `01`, nested `0201`; `00` for a message's own part and for callbacks.
    pub branch_id: String,
    /// What is asked of the branch: see [`op`].
    pub op: String,
    /// The coordinator's address, when a client calls (and not the coordinator): a nested TCC registers there.
    pub coordinator: Option<String>,
    /// Where the second phase of an XA branch is to be called.
    pub phase2_url: Option<String>,
}

/// A call without an identity: not one of a global transaction, or its parameters got lost on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{missing}` is missing or empty: this is no call of a branch of a global transaction")]
pub struct NoBranchCall {
    pub missing: &'static str,
}

impl BranchCall {
    /// Refuses an empty part: a barrier could not tell such calls apart.
    pub fn new(
        trans_type: impl Into<String>,
        gid: impl Into<String>,
        branch_id: impl Into<String>,
        op: impl Into<String>,
    ) -> Result<Self, NoBranchCall> {
        let call = Self {
            trans_type: clean(trans_type.into()),
            gid: clean(gid.into()),
            branch_id: clean(branch_id.into()),
            op: clean(op.into()),
            coordinator: None,
            phase2_url: None,
        };
        let parts = [&call.gid, &call.trans_type, &call.branch_id, &call.op];
        match parts.iter().zip(["gid", "trans_type", "branch_id", "op"]).find(|(part, _)| part.is_empty()) {
            Some((_, missing)) => Err(NoBranchCall { missing }),
            None => Ok(call),
        }
    }

    /// From the query of an HTTP call, with or without its `?`.
    ///
    /// ```
    /// let call = rushline::branch_call::BranchCall::from_query("gid=g1&trans_type=saga&branch_id=01&op=action")?;
    /// assert_eq!((call.gid.as_str(), call.op.as_str()), ("g1", "action"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_query(query: &str) -> Result<Self, NoBranchCall> {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.trim_start_matches('?').as_bytes()).into_owned().collect();
        let find = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Self::read(find)
    }

    /// From the metadata of a gRPC call, as headers: `dtm-gid`, `dtm-trans_type`, `dtm-branch_id`, `dtm-op`.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, NoBranchCall> {
        Self::read(|name| Some(headers.get(format!("dtm-{name}"))?.to_str().ok()?.to_owned()))
    }

    fn read(find: impl Fn(&str) -> Option<String>) -> Result<Self, NoBranchCall> {
        let given = |name| find(name).unwrap_or_default();
        let mut call = Self::new(given("trans_type"), given("gid"), given("branch_id"), given("op"))?;
        call.coordinator = find("dtm").filter(|text| !text.is_empty());
        call.phase2_url = find("phase2_url").filter(|text| !text.is_empty());
        Ok(call)
    }

    /// The op that this one undoes, if it undoes one.
    pub fn undoes(&self) -> Option<&'static str> {
        match self.op.as_str() {
            op::CANCEL => Some(op::TRY),
            op::COMPENSATE | op::ROLLBACK => Some(op::ACTION),
            _ => None,
        }
    }
}

/// As dtm's clients clean what they read, so that both find the same barrier.
fn clean(text: String) -> String {
    if text.contains(['\n', '\r', ';']) { text.replace(['\n', '\r', ';'], "") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_from_a_query_and_from_headers_alike() {
        let query = "?gid=g%20%22%7B1%7D&trans_type=tcc&branch_id=0102&op=cancel&dtm=http%3A%2F%2Fh%2Fapi%2Fdtmsvr";
        let by_query = BranchCall::from_query(query).unwrap();
        assert_eq!((by_query.gid.as_str(), by_query.undoes()), ("g \"{1}", Some("try")));
        assert_eq!(by_query.coordinator.as_deref(), Some("http://h/api/dtmsvr"));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("gid", "g \"{1}"),
            ("trans_type", "tcc"),
            ("branch_id", "0102"),
            ("op", "cancel"),
            ("dtm", "http://h/api/dtmsvr"),
        ] {
            headers.insert(http::HeaderName::try_from(format!("dtm-{name}")).unwrap(), value.parse().unwrap());
        }
        assert_eq!(BranchCall::from_headers(&headers).unwrap(), by_query);
    }

    #[test]
    fn a_call_without_identity_is_none() {
        assert_eq!(BranchCall::from_query("gid=g&trans_type=msg&op=msg").unwrap_err().missing, "branch_id");
        assert_eq!(BranchCall::from_query("").unwrap_err().missing, "gid");
        assert_eq!(BranchCall::new("saga", ";\n", "01", "action").unwrap_err().missing, "gid");
    }
}
