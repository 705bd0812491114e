//! The words of the protocol, dtm's spellings: modes, statuses, transports, ops.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An enum whose variants are words on the wire: `as_str`, `parse`, `Display` and serde by the same table.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The mode of a global transaction: `trans_type`.
    TransType {
        /// Two-phase message: prepare, local work, submit; asked back if submit never comes.
        Msg = "msg",
        /// Actions, and their compensations when one of them fails.
        Saga = "saga",
        /// Try by the client, confirm or cancel by the server.
        Tcc = "tcc",
        /// Two-phase commit of database branches.
        Xa = "xa",
        /// The client runs it; the server keeps the progress and calls back.
        Workflow = "workflow",
    }
}

words! {
    /// How far a global transaction is.
    GlobalStatus {
        /// Begun, undecided.
        Prepared = "prepared",
        /// Decided: it is to succeed (a saga may still turn back).
        Submitted = "submitted",
        /// Decided: it is being undone.
        Aborting = "aborting",
        /// Over; never changes again.
        Succeed = "succeed",
        /// Over; never changes again.
        Failed = "failed",
    }
}

impl GlobalStatus {
    /// Over: nothing is called or changed any more.
    pub fn is_final(self) -> bool {
        matches!(self, GlobalStatus::Succeed | GlobalStatus::Failed)
    }

    /// The legal moves, all modes together. What is over stays as it is.
    pub fn may_become(self, to: GlobalStatus) -> bool {
        use GlobalStatus::{Aborting, Failed, Prepared, Submitted, Succeed};
        match self {
            Prepared => to != Prepared,
            Submitted => matches!(to, Succeed | Aborting | Failed),
            Aborting => to == Failed,
            Succeed | Failed => false,
        }
    }
}

words! {
    /// What became of one branch op.
    BranchStatus {
        /// Not known to have been carried out.
        Prepared = "prepared",
        Succeed = "succeed",
        /// Refused for good. Only a saga's action and a workflow's step can be.
        Failed = "failed",
    }
}

words! {
    /// How branches are called, unless the URL says otherwise.
    Protocol {
        Http = "http",
        JsonRpc = "json-rpc",
        Grpc = "grpc",
    }
}

words! {
    /// What a branch is asked to do.
    Op {
        /// msg, saga; recorded by xa and workflow clients.
        Action = "action",
        /// Undoes a saga's action.
        Compensate = "compensate",
        /// tcc, second phase.
        Confirm = "confirm",
        /// tcc, second phase.
        Cancel = "cancel",
        /// xa, second phase; recorded by workflow clients.
        Commit = "commit",
        /// xa, second phase; recorded by workflow clients.
        Rollback = "rollback",
        /// Recorded by workflow clients for a local xa branch.
        Business = "business",
        /// tcc, first phase: the client's own; a workflow may record it.
        Try = "try",
        /// The check-back of a two-phase message.
        Msg = "msg",
    }
}
