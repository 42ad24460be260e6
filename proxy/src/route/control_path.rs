//! The closed list of control paths that go to upstream as they come. Whatever is not listed does not exist: a new
//! path of upstream may act on an account in ways that a pool must not pass on.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlPath {
    /// Reads the goal of a thread.
    ThreadGoalGet,
    /// Sets it.
    ThreadGoalSet,
    /// Takes it away.
    ThreadGoalClear,
    /// Makes memories out of what happened.
    TraceSummarize,
    /// Asks whether something is safe.
    SafetyArc,
    /// Searches the web.
    Search,
    /// The keys that agents sign with.
    AgentKeys,
}

impl ControlPath {
    const ALL: [Self; 7] = [
        Self::ThreadGoalGet,
        Self::ThreadGoalSet,
        Self::ThreadGoalClear,
        Self::TraceSummarize,
        Self::SafetyArc,
        Self::Search,
        Self::AgentKeys,
    ];

    /// The one with this path below `/backend-api/codex/`.
    pub(super) fn find(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|control| control.path() == path)
    }

    /// The path below `/codex/`, here and upstream.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::ThreadGoalGet => "thread/goal/get",
            Self::ThreadGoalSet => "thread/goal/set",
            Self::ThreadGoalClear => "thread/goal/clear",
            Self::TraceSummarize => "memories/trace_summarize",
            Self::SafetyArc => "safety/arc",
            Self::Search => "alpha/search",
            Self::AgentKeys => "agent-identities/jwks",
        }
    }

    /// Whether it is about a thread, which belongs to a caller.
    pub(crate) const fn is_about_thread(self) -> bool {
        match self {
            Self::ThreadGoalGet | Self::ThreadGoalSet | Self::ThreadGoalClear => true,
            Self::TraceSummarize | Self::SafetyArc | Self::Search | Self::AgentKeys => false,
        }
    }

    /// The methods with which clients call it.
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::ThreadGoalGet => "GET, POST",
            Self::AgentKeys => "GET",
            Self::ThreadGoalSet | Self::ThreadGoalClear | Self::TraceSummarize | Self::SafetyArc | Self::Search => {
                "POST"
            }
        }
    }

    /// The metric label and the request log's word.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ThreadGoalGet => "thread_goal_get",
            Self::ThreadGoalSet => "thread_goal_set",
            Self::ThreadGoalClear => "thread_goal_clear",
            Self::TraceSummarize => "memories_trace_summarize",
            Self::SafetyArc => "safety_arc",
            Self::Search => "alpha_search",
            Self::AgentKeys => "agent_identities_jwks",
        }
    }
}
