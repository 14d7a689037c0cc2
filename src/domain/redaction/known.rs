//! Secrets that say themselves what they are, by how they begin, wherever they stand.

use super::text::CUT;

/// Of jobmeter, GitHub, GitLab, OpenAI, Anthropic, Hugging Face, Slack, Stripe, npm and PyPI.
const BEGINNINGS: [&str; 17] = [
    "jm_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "sk-",
    "hf_",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "sk_live_",
    "rk_live_",
    "npm_",
    "pypi-",
    "whsec_",
];
/// What is shorter is a word that begins alike.
const CHARS_MIN: usize = 16;

/// The same text without them.
pub(super) fn cut(text: String) -> String {
    if !BEGINNINGS.iter().any(|beginning| text.contains(beginning)) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-') {
            word.push(letter);
        } else {
            take(&mut out, &mut word);
            out.push(letter);
        }
    }
    take(&mut out, &mut word);
    out
}

fn take(out: &mut String, word: &mut String) {
    let rest = BEGINNINGS.iter().find_map(|beginning| word.strip_prefix(beginning));
    // A name such as sk-learn-pipeline-example has no digit.
    let is_secret = rest.is_some_and(|rest| rest.len() >= CHARS_MIN && rest.contains(|c: char| c.is_ascii_digit()));
    out.push_str(if is_secret { CUT } else { word });
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_cut_wherever_they_stand() {
        let key = "jm_0123456789ab_00112233445566778899aabbccddeeff";
        for (text, expected) in [
            (format!("-H \"X: {key}\""), "-H \"X: ***\"".to_owned()),
            ("url=https://x/?t=ghp_0123456789abcdefABCDEF".to_owned(), "url=https://x/?t=***".to_owned()),
            ("sk-learn-pipeline-example jm_1 hf_hub_download".to_owned(), String::new()),
        ] {
            let kept = if expected.is_empty() { text.clone() } else { expected };
            assert_eq!(cut(text), kept);
        }
    }
}
