use proptest::prelude::*;

use super::names::WORDS;
use super::*;

const ROOM: usize = 4_096;

fn cut_by(names: &SecretNames, command: &[&str]) -> Vec<String> {
    let mut cutter = Cutter::new(names);
    command.iter().map(|argument| cutter.argument(argument, ROOM)).collect()
}

fn cut(command: &[&str]) -> Vec<String> {
    cut_by(&SecretNames::default(), command)
}

/// Of `sh -c`.
fn script(text: &str) -> String {
    cut(&["sh", "-c", text]).pop().unwrap()
}

#[test]
fn values_of_secret_names_are_cut() {
    for (command, kept) in [
        (&["a", "--token", "x y", "b"][..], &["a", "--token", "***", "b"][..]),
        (&["a", "--api-key=x y", "b"], &["a", "--api-key=***", "b"]),
        (&["a", "-password=x"], &["a", "-password=***"]),
        (&["env", "DB_PASSWORD=x y;z", "a"], &["env", "DB_PASSWORD=***", "a"]),
        (&["env", "PGPASSWORD=x", "AWS_SECRET_ACCESS_KEY=y"], &["env", "PGPASSWORD=***", "AWS_SECRET_ACCESS_KEY=***"]),
        (&["a", "--clientSecret", "x", "--APIKey", "y"], &["a", "--clientSecret", "***", "--APIKey", "***"]),
        (&["java", "-Ddb.password=x", "-jar"], &["java", "-Ddb.password=***", "-jar"]),
        (&["a", "--token", "-x_of_base64"], &["a", "--token", "***"]),
        (&["curl", "-H", "X-Api-Key: x y"], &["curl", "-H", "X-Api-Key: ***"]),
        (&["curl", "-H", "Authorization: Bearer x"], &["curl", "-H", "Authorization: Bearer ***"]),
        (&["curl", "-H", "authorization:Basic eA=="], &["curl", "-H", "authorization:Basic ***"]),
        (&["curl", "-u", "ann:x", "--user=ann:y"], &["curl", "-u", "ann:***", "--user=ann:***"]),
        (&["a", "{\"password\": \"x\", \"n\": 1}"], &["a", "{\"password\": \"***\", \"n\": 1}"]),
    ] {
        assert_eq!(cut(command), kept);
    }
}

#[test]
fn what_is_no_secret_stays() {
    for command in [
        &["a", "--key-column", "id", "--keys", "a,b", "--tokenizer", "gpt2", "--max-tokens", "200"][..],
        &["env", "KEYBOARD=us", "MONKEY=1", "AUTHOR=ann", "a"],
        &["a", "--no-auth", "train.py"],
        &["a", "--auth", "--verbose", "-v"],
        &["a", "--token"],
        &["a", "--token=", "b"],
        &["docker", "run", "-u", "1000:1000"],
        &["git", "clone", "https://example.org:8080/a@b", "ssh://git@example.org/x"],
        &["python3", "-c", "print('token')\nfor key in keys: pass"],
    ] {
        assert_eq!(cut(command), command);
    }
}

#[test]
fn a_script_keeps_its_quotes() {
    for (text, kept) in [
        ("TOKEN=x python a.py --password y", "TOKEN=*** python a.py --password ***"),
        ("export TOKEN='x y'; a", "export TOKEN='***'; a"),
        ("TOKEN=\"x \\\" y\" a", "TOKEN=\"***\" a"),
        ("TOKEN=a\"b c\"'d e' f", "TOKEN=*** f"),
        ("TOKEN='a b'\"c d\" f", "TOKEN='***' f"),
        ("TOKEN=$(cat /a 'b c') f", "TOKEN=*** f"),
        ("TOKEN=a\\ b f", "TOKEN=*** f"),
        ("TOKEN= a", "TOKEN= a"),
        ("a --token \\\n x b", "a --token \\\n *** b"),
        ("a --auth\nb", "a --auth\nb"),
        ("a --auth; b", "a --auth; b"),
        ("curl -H 'Authorization: Bearer x' u", "curl -H 'Authorization: Bearer ***' u"),
        ("curl -u ann:x u; curl -u 'ann:x y' u", "curl -u ann:*** u; curl -u 'ann:***' u"),
        ("bash -c 'TOKEN=x a'", "bash -c 'TOKEN=***'"),
        ("a \"--token\" \"x y\" b", "a \"--token\" \"***\" b"),
        ("[\"a\", \"--token\", \"x y\", \"b\"]", "[\"a\", \"--token\", \"***\", \"b\"]"),
        ("a \"{\\\"password\\\": \\\"x y\\\"}\" b", "a \"{\\\"password\\\": \\\"***\\\"}\" b"),
        ("os.environ['API_KEY'] = 'x y'; a()", "os.environ['API_KEY'] = '***'; a()"),
        ("TOKEN=\"x y", "TOKEN=\"***"),
        ("a 'https://h/?token=x&page=2' b", "a 'https://h/?token=***&page=2' b"),
    ] {
        assert_eq!(script(text), kept);
    }
}

#[test]
fn of_a_url_the_password_alone_is_cut() {
    for (url, kept) in [
        ("postgres://ann:x@db/a", "postgres://ann:***@db/a"),
        ("postgresql+psycopg2://ann:x@y@db:5432/a?b=c", "postgresql+psycopg2://ann:***@db:5432/a?b=c"),
        ("redis://:x@h", "redis://:***@h"),
        ("http://ann:x/y@h/", "http://ann:***@h/"),
        ("DATABASE_URL=mysql://ann:x@h/d", "DATABASE_URL=mysql://ann:***@h/d"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
    ] {
        assert_eq!(cut(&["a", url]), ["a", kept]);
    }
}

#[test]
fn the_names_are_a_setting() {
    let command = ["a", "--token", "x", "--Session-Id=y", "http://ann:z@h", "Authorization: Bearer w"];
    let none = cut_by(&SecretNames::new([""; 0]), &command);
    assert_eq!(none, ["a", "--token", "x", "--Session-Id=y", "http://ann:***@h", "Authorization: Bearer ***"]);
    let own = cut_by(&SecretNames::new(["session-id"]), &command);
    assert_eq!(own, ["a", "--token", "x", "--Session-Id=***", "http://ann:***@h", "Authorization: Bearer ***"]);
}

#[test]
fn what_only_sounds_like_a_secret_stays() {
    for line in [
        "train.py --max-tokens 20 --auth-mode none --token-type bert --pad-token-id 0 --eos_token </s>",
        "sort --sort-key name --primary-key id --foreign-key=x --partition-key=date --cache-key a",
        "app --password-file p --auth-file a --tls-key-path k --key-column id",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(cut(&words).join(" "), line);
    }
    assert_eq!(
        cut(&["a", "--oauth2-bearer", "x", "--jwt=y", "--pw", "z"]),
        ["a", "--oauth2-bearer", "***", "--jwt=***", "--pw", "***"]
    );
}

#[test]
fn a_line_is_read_no_further_than_is_kept() {
    let names = SecretNames::default();
    let long = "http://".repeat(20_000);
    assert!(Cutter::new(&names).argument(&long, ROOM).len() < 2 * ROOM);
    let late = format!("{} --token=x", "a ".repeat(ROOM));
    assert!(Cutter::new(&names).argument(&late, ROOM).starts_with("a a "));
}

fn secret() -> impl Strategy<Value = String> {
    "[A-Za-z0-9+/_.~^%=]{1,6}Qx7[A-Za-z0-9+/_.~^%=]{1,6}"
}

/// With what ends a word: it has to be quoted.
fn phrase() -> impl Strategy<Value = String> {
    "[ ,;:)}&|<>=/A-Z-]{1,6}Qx7[ ,;:)}&|<>=/A-Z-]{1,6}"
}

fn name() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(&WORDS[..]);
    let before = proptest::sample::select(&["", "db-", "MY_", "app.", "x-"][..]);
    let joined = (before, word, any::<bool>());
    joined.prop_map(|(before, word, loud)| {
        let name = format!("{before}{word}");
        if loud { name.to_uppercase() } else { name }
    })
}

/// Command lines that hold a secret.
fn forms(name: &str, secret: &str) -> Vec<Vec<String>> {
    let argument = |text: String| vec!["a".to_owned(), text];
    let script = |text: String| vec!["bash".to_owned(), "-ec".to_owned(), text];
    let in_url = secret.replace(['/', '%', '?', '#'], "");
    let mut forms = vec![vec!["a".to_owned(), format!("--{name}"), secret.to_owned()]];
    forms.extend([
        argument(format!("--{name}={secret} and {secret}")),
        argument(format!("-{name}={secret}")),
        argument(format!("{name}={secret} '{secret}\" {secret}")),
        argument(format!("{name}: {secret} {secret}")),
        argument(format!("http://ann:{in_url}@h/a?b=c")),
        argument(format!("X: y Authorization: Bearer {secret}")),
        argument(format!("{{\"{name}\":\"{secret} {secret}\"}}")),
        argument(format!("{{'a': 1, '{name}': '{secret}'}}")),
    ]);
    forms.extend([
        script(format!("{name}={secret} a --b")),
        script(format!("a; export {name}=\"{secret} {secret}\" b")),
        script(format!("it=1 a --{name}   '{secret} {secret}' b")),
        script(format!("a --{name} {secret}; b")),
        script(format!("a -H \"{name}: {secret} {secret}\" b")),
        script(format!("a -H 'Authorization: Basic {secret}' http://ann:{in_url}@h b")),
        script(format!("a \"{{\\\"{name}\\\": \\\"{secret} {secret}\\\"}}\" b")),
        script(format!("curl -u 'ann:{secret} {secret}' h")),
        script(format!("curl -u ann:{secret} h")),
    ]);
    forms
}

/// Those in which it is quoted in every way there is.
fn quoted_forms(name: &str, phrase: &str) -> Vec<Vec<String>> {
    let argument = |text: String| vec!["a".to_owned(), text];
    let script = |text: String| vec!["bash".to_owned(), "-ec".to_owned(), text];
    let mut forms = vec![vec!["curl".to_owned(), "--user".to_owned(), format!("ann:{phrase}")]];
    for quote in ["'", "\""] {
        forms.extend([
            argument(format!("{{{quote}{name}{quote}: {quote}{phrase}{quote}, {quote}b{quote}: 1}}")),
            argument(format!("{{{quote}b{quote}: 1, {quote}{name}{quote}:{quote}{phrase}{quote}}}")),
            argument(format!("[{quote}--{name}{quote}, {quote}x{phrase}{quote}]")),
            script(format!("{name}={quote}{phrase}{quote} a")),
            script(format!("a; {name}=b{quote}{phrase}{quote}c a")),
            script(format!("a --{name}={quote}{phrase}{quote} b")),
            script(format!("a --{name} {quote}x{phrase}{quote} b")),
            script(format!("a {quote}--{name}={phrase}{quote} b")),
            script(format!("a -H {quote}{name}: {phrase}{quote} b")),
            script(format!("a -H {quote}Authorization: {phrase}{quote} b")),
            script(format!("a({quote}{name}{quote}={quote}{phrase}{quote})")),
            script(format!("a[{quote}{name}{quote}] = {quote}{phrase}{quote}")),
            script(format!("curl -u {quote}ann:{phrase}{quote} h")),
        ]);
    }
    forms
}

proptest! {
    #![proptest_config(crate::properties::config())]

    #[test]
    fn no_secret_is_left_in_any_form(name in name(), secret in secret()) {
        for form in forms(&name, &secret) {
            let arguments: Vec<&str> = form.iter().map(String::as_str).collect();
            let kept = cut(&arguments).join(" ");
            prop_assert!(!kept.contains("Qx7"), "{form:?} became {kept}");
            prop_assert!(kept.contains(CUT), "{form:?} became {kept}");
        }
    }

    #[test]
    fn no_phrase_is_left_in_quotes(name in name(), phrase in phrase()) {
        for form in quoted_forms(&name, &phrase) {
            let arguments: Vec<&str> = form.iter().map(String::as_str).collect();
            let kept = cut(&arguments).join(" ");
            prop_assert!(!kept.contains("Qx7"), "{form:?} became {kept}");
        }
    }

    #[test]
    fn any_text_is_cut_once_and_for_all(
        before in "(sh|curl|a|--token|-u)",
        flag in "(-c|-u|--token|a)",
        text in "([a ]|token|key|=|:|\"|'|`|\\\\|\n|--|-|\\$|\\(|\\)|://|@|/|,|Authorization|Bearer |é|curl -u |\\PC){0,24}",
        after in any::<String>(),
    ) {
        let command = [before.as_str(), flag.as_str(), text.as_str(), after.as_str()];
        let once = cut(&command);
        let arguments: Vec<&str> = once.iter().map(String::as_str).collect();
        prop_assert_eq!(cut(&arguments), once);
    }

    #[test]
    fn without_a_trigger_nothing_changes(words in proptest::collection::vec("[b-df-ln-oq-rtv-z0-9 ,;:='\"\\\\/é-]{0,12}", 0..6)) {
        let command: Vec<&str> = words.iter().map(String::as_str).collect();
        let is_trigger = |word: &str| word.contains("://");
        prop_assume!(!command.iter().any(|word| is_trigger(word)));
        prop_assert_eq!(cut(&command), command);
    }
}
