//! Why a description was refused.

/// A description that cannot be used. The peer that sent it keeps what was agreed on before.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SdpError {
    /// A line does not follow its grammar, or goes past a bound.
    #[error("line {line}: {fault}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The lines are fine by themselves, one media section as a whole is not.
    #[error("media section {index}: {fault}")]
    Section {
        /// Counted from 0, as `m=` lines are in JSEP.
        index: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The description as a whole cannot be used.
    #[error("{0}")]
    Description(&'static str),
}
