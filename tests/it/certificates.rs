//! The certificate of a service is renewed while it runs.

use nix::sys::signal::Signal;

use crate::service::Service;
use crate::station::{Station, awaited};

/// A certificate of our own for this name, and its key, in these files. The station is that of whoever renews it.
fn make(station: &Station, name: &str, certificate: &str, key: &str) {
    let made = station.sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} \
         -addext subjectAltName=IP:127.0.0.1 -keyout $DIR/{key} -out $DIR/{certificate} 2>&1"
    ));
    assert_eq!(made.status, 0, "{made:?}");
}

/// Whose certificate a new connection gets.
fn name_of(service: &Service) -> String {
    let address = service.address();
    let line = format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -subject");
    service.station.sh(&line).out.trim().replace(' ', "")
}

fn becomes(service: &Service, name: &str) {
    let wanted = format!("subject=CN={name}");
    awaited(|| {
        let found = name_of(service);
        if found == wanted { Ok(()) } else { Err(found) }
    });
}

#[test]
fn a_certificate_is_renewed_without_a_restart_and_a_bad_one_is_not_taken() {
    let files = Station::new();
    make(&files, "first", "cert.pem", "key.pem");
    let (certificate, key) = (files.path("cert.pem"), files.path("key.pem"));
    let options = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let service = Service::with(&options);
    becomes(&service, "first");
    // As an ACME client does: other files take the place of these.
    make(&files, "second", "new.pem", "new-key.pem");
    std::fs::rename(files.path("new-key.pem"), &key).unwrap();
    std::fs::rename(files.path("new.pem"), &certificate).unwrap();
    becomes(&service, "second");
    // What is no certificate leaves the old one in use, also when it is asked for.
    std::fs::write(&certificate, "no certificate").unwrap();
    service.signal(Signal::SIGHUP);
    becomes(&service, "second");
    // In place, and asked for at once.
    make(&files, "third", "cert.pem", "key.pem");
    service.signal(Signal::SIGHUP);
    becomes(&service, "third");
}

/// `systemctl reload` of a service without TLS has nothing to read, and ends nothing.
#[test]
fn a_service_without_a_certificate_outlives_a_reload() {
    let service = Service::start();
    service.signal(Signal::SIGHUP);
    assert_eq!(service.call(&service.admin, &["status"]).status, 0);
    assert_eq!(service.ask("", "GET", "/readyz", "").0, 200);
}
