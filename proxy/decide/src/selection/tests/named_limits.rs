//! Limits of single models: their names, and which model has which.

use crate::selection::named_limits::{ModelLimits, canonical};

#[test]
fn one_limit_has_one_name() {
    let cases = [
        ("codex", None),
        (" Codex ", None),
        ("premium", None),
        ("", None),
        ("  ", None),
        ("codex_bengalfox", Some("gpt-5.3-codex-spark")),
        ("codex_spark", Some("gpt-5.3-codex-spark")),
        ("GPT-5.3-Codex-Spark", Some("gpt-5.3-codex-spark")),
        ("GPT 5.3 Codex Spark", Some("gpt-5.3-codex-spark")),
        ("codex_luna", Some("codex-luna")),
    ];
    for (upstream_name, expected) in cases {
        assert_eq!(canonical(upstream_name).as_deref(), expected, "{upstream_name:?}");
    }
    assert_eq!(canonical(&"x".repeat(128)), Some("x".repeat(128)));
    assert_eq!(canonical(&"x".repeat(129)), None);
}

#[test]
fn which_model_has_a_limit_of_its_own_is_learned_from_answers() {
    let mut limits = ModelLimits::default();
    assert_eq!(limits.of("gpt-5.3-codex-spark"), Some("gpt-5.3-codex-spark"));
    assert_eq!(limits.of("gpt-5.5"), None);
    assert!(!limits.learn("gpt-5.5", "premium"), "that it has none was assumed");
    assert!(!limits.learn("gpt-5.3-codex-spark", "codex_bengalfox"), "that was known");
    assert!(limits.learn("gpt-6-luna", "codex_luna"));
    assert!(!limits.learn("gpt-6-luna", "codex-luna"));
    assert_eq!(limits.of("gpt-6-luna"), Some("codex-luna"));
    assert!(limits.learn("gpt-6-luna", "codex_sol"));
    assert_eq!(limits.of("gpt-6-luna"), Some("codex-sol"));
    assert!(limits.learn("gpt-5.3-codex-spark", "codex"), "upstream may put it back under the account's windows");
    assert_eq!(limits.of("gpt-5.3-codex-spark"), None);
}

#[test]
fn what_is_learned_has_a_bound() {
    let mut limits = ModelLimits::default();
    assert!(!limits.learn(&"m".repeat(129), "luna"));
    assert!(limits.learn(&"m".repeat(128), "luna"));
    for number in 1..64 {
        assert!(limits.learn(&format!("model-{number}"), "luna"));
    }
    assert!(!limits.learn("one-too-many", "luna"));
    assert_eq!(limits.of("one-too-many"), None);
    assert!(limits.learn("model-1", "sol"), "what is known may still change");
}
