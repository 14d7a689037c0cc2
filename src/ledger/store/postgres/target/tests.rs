//! What is read of a location, of files and of the environment.

use super::*;

fn target(location: &str) -> Result<Target, LedgerError> {
    Target::new(location, &Environment::default())
}

fn at(home: &Path) -> Environment {
    Environment { home: Some(home.to_owned()), ..Environment::default() }
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn password(location: &str, environment: &Environment) -> Option<String> {
    let target = Target::new(location, environment).unwrap();
    target.config.get_password().map(|password| String::from_utf8(password.to_vec()).unwrap())
}

#[test]
fn a_url_and_pairs_say_the_same() {
    for location in [
        "postgres://me:p%20w@db:5433/books?sslmode=require&application_name=x",
        "postgres:host=db port = 5433 dbname='books' user=me password='p w' sslmode=require application_name=x",
    ] {
        let Target { config, encryption, roots, .. } = target(location).unwrap();
        assert_eq!(config.get_hosts(), [Host::Tcp("db".to_owned())]);
        assert_eq!(
            (config.get_ports(), config.get_dbname(), config.get_user()),
            (&[5433][..], Some("books"), Some("me"))
        );
        assert_eq!(config.get_password(), Some(&b"p w"[..]));
        assert_eq!(
            (encryption, roots, config.get_ssl_mode()),
            (Encryption::Require, Roots::Unchecked, SslMode::Require)
        );
    }
    assert_eq!(pairs("a='it\\'s \\\\' b=c\\ d").unwrap(), [("a".into(), "it's \\".into()), ("b".into(), "c d".into())]);
    for wrong in ["postgres:host", "postgres:host=db dbname='books", "postgres:=x", "postgres:host=db nonsense=1"] {
        assert!(target(wrong).is_err(), "{wrong}");
    }
    let error = target("postgres:host=db password=secret nonsense=1").unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_mode_means_what_libpq_means_by_it() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join(".postgresql/root.crt");
    let read = |query: &str| Target::new(&format!("postgres://db/books{query}"), &at(home.path()));
    let checks = |query: &str| read(query).map(|target| (target.encryption, target.roots));
    for (name, mode) in [
        ("?sslmode=disable", Encryption::Disable),
        ("?sslmode=allow", Encryption::Allow),
        ("", Encryption::Prefer),
        ("?sslmode=prefer", Encryption::Prefer),
        ("?sslmode=require", Encryption::Require),
    ] {
        assert_eq!(checks(name).unwrap(), (mode, Roots::Unchecked));
    }
    // Nothing to check against, and no such mode.
    for (query, why) in [
        ("?sslmode=verify-ca", "root.crt does not exist"),
        ("?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem does not exist"),
        ("?sslmode=require&sslrootcert=system", "verify-full"),
        ("?sslmode=on", "verify-full"),
    ] {
        let error = read(query).unwrap_err().to_string();
        assert!(error.contains(why), "{query}: {error}");
    }
    assert_eq!(checks("?sslrootcert=system").unwrap(), (Encryption::VerifyFull, Roots::System));
    // A file that is there is used by every mode.
    write(&root, "", 0o644);
    assert_eq!(checks("?sslmode=verify-full").unwrap(), (Encryption::VerifyFull, Roots::File(root.clone())));
    assert_eq!(checks("?sslmode=require").unwrap(), (Encryption::Require, Roots::File(root.clone())));
    let named = format!("?sslmode=verify-ca&sslrootcert={}", root.display().to_string().replace('/', "%2F"));
    assert_eq!(checks(&named).unwrap(), (Encryption::VerifyCa, Roots::File(root)));
    // Nobody listens in on a unix socket.
    assert_eq!(target("postgres:host=/run/pg sslmode=require").unwrap().encryption, Encryption::Disable);
}

#[test]
fn a_password_comes_from_the_string_the_environment_or_a_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    let lines = "# host:port:database:user:password\nother:*:*:*:wrong\ndb:5432:books:me:by\\:line\\\\:2\n*:*:*:you:yours\n\
                 localhost:*:*:me:local\n";
    write(&file, lines, 0o600);
    let environment = at(home.path());
    assert_eq!(password("postgres://me@db/books", &environment).as_deref(), Some("by:line\\:2"));
    assert_eq!(password("postgres://me@db:1/books", &environment), None);
    assert_eq!(password("postgres:host=/var/run/postgresql user=me", &environment).as_deref(), Some("local"));
    assert_eq!(password("postgres://you@elsewhere/x", &environment).as_deref(), Some("yours"));
    let with_password = Environment { password: Some("environment".to_owned()), ..at(home.path()) };
    assert_eq!(password("postgres://me@db/books", &with_password).as_deref(), Some("environment"));
    assert_eq!(password("postgres://me:string@db/books", &with_password).as_deref(), Some("string"));
    // Another file, by the string before the environment.
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    write(&first, "*:*:*:*:first\n", 0o600);
    write(&second, "*:*:*:*:second\n", 0o600);
    let with_file = Environment { passfile: Some(second), ..at(home.path()) };
    assert_eq!(password("postgres://me@db/books", &with_file).as_deref(), Some("second"));
    let named = format!("postgres:host=db user=me passfile={}", first.display());
    assert_eq!(password(&named, &with_file).as_deref(), Some("first"));
    // One that others can read is not used, and whoever is refused is told.
    write(&file, lines, 0o640);
    let target = Target::new("postgres://me@db/books", &environment).unwrap();
    assert_eq!(target.config.get_password(), None);
    assert!(target.ignored.is_some_and(|why| why.contains(".pgpass") && why.contains("chmod 600")));
}
