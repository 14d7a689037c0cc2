//! How a job is named. An id is a scheduler's, so that two of them may have given the same one: a job is the account's and the
//! principal's that opened it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::asker::{Asker, Reach};

/// Which job of all: no two have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The account that pays.
    pub owner: String,
    /// The node, cluster or service that opened it; empty where it was opened without a service.
    pub principal: String,
    /// As its scheduler names it.
    pub id: String,
}

/// What somebody says who means a job: its id, and where several have that, whose it is as well. It travels as the id alone where
/// nothing else is said, which is all that a jobmeter of before knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobName {
    /// As its scheduler names it.
    pub id: String,
    /// Of this account alone.
    pub user: Option<String>,
    /// Of this principal alone; the empty one for jobs that were opened without a service.
    pub principal: Option<String>,
}

/// As it travels where more is said than the id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
}

impl Serialize for JobName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { id, user, principal } = self.clone();
        if user.is_none() && principal.is_none() {
            return serializer.serialize_str(&id);
        }
        Whole { id, user, principal }.serialize(serializer)
    }
}

/// Reads a name as it travels, in either way.
struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = JobName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id of a job, or an id with a user or a principal")
    }

    fn visit_str<E>(self, id: &str) -> Result<JobName, E> {
        Ok(id.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<JobName, A::Error> {
        let Whole { id, user, principal } = Whole::deserialize(MapAccessDeserializer::new(fields))?;
        Ok(JobName { id, user, principal })
    }
}

impl<'de> Deserialize<'de> for JobName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

impl From<String> for JobName {
    fn from(id: String) -> Self {
        Self { id, user: None, principal: None }
    }
}

impl From<&str> for JobName {
    fn from(id: &str) -> Self {
        id.to_owned().into()
    }
}

impl From<JobKey> for JobName {
    fn from(JobKey { owner, principal, id }: JobKey) -> Self {
        Self { id, user: Some(owner), principal: Some(principal) }
    }
}

impl JobName {
    /// The same of this account alone; `None` where another one was named.
    #[must_use]
    pub fn of_user(self, user: &str) -> Option<Self> {
        let is_same = self.user.as_deref().is_none_or(|named| named == user);
        is_same.then(|| Self { user: Some(user.to_owned()), ..self })
    }

    /// The same among the jobs that this asker may change; `None` where none of them can be meant.
    #[must_use]
    pub fn within(self, asker: &Asker) -> Option<Self> {
        match &asker.reach {
            Reach::All => Some(self),
            Reach::Owner(own) => self.of_user(own),
            Reach::Principal => {
                let is_same = self.principal.as_ref().is_none_or(|named| *named == asker.principal);
                is_same.then(|| Self { principal: Some(asker.principal.clone()), ..self })
            }
        }
    }

    /// Whether this job may be meant, going by its whole id.
    #[must_use]
    pub fn names(&self, job: &JobKey) -> bool {
        self.id == job.id
            && self.user.as_ref().is_none_or(|user| *user == job.owner)
            && self.principal.as_ref().is_none_or(|principal| *principal == job.principal)
    }

    /// Nobody knows such a job who may be told.
    #[must_use]
    pub fn missing(&self) -> String {
        format!("no job {:?} is known: `jobmeter jobs list` shows them", self.id)
    }

    /// Several jobs have this id, all of which the asker may know.
    #[must_use]
    pub fn ambiguous(&self, jobs: &[JobKey]) -> String {
        let told = |job: &JobKey| match job.principal.as_str() {
            "" => format!("of {:?} without a principal", job.owner),
            principal => format!("of {:?} by {principal:?}", job.owner),
        };
        let told: Vec<String> = jobs.iter().map(told).collect();
        format!(
            "several jobs have the id {:?}: {}; say which by --user and --principal, over HTTP by the parameters user and principal",
            self.id,
            told.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_id_where_nothing_else_is_said() {
        let bare = JobName::from("j");
        let whole = JobName { user: Some("ann".to_owned()), ..bare.clone() };
        for (name, json) in [(&bare, r#""j""#), (&whole, r#"{"id":"j","user":"ann"}"#)] {
            assert_eq!(serde_json::to_string(name).unwrap(), json);
            assert_eq!(serde_json::from_str::<JobName>(json).unwrap(), *name);
        }
        for wrong in ["7", "{}", r#"{"id":"j","owner":"ann"}"#, "null", "[\"j\"]"] {
            assert!(serde_json::from_str::<JobName>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_names_what_they_do_not_reach() {
        let job = |owner: &str, principal: &str| JobKey {
            owner: owner.to_owned(),
            principal: principal.to_owned(),
            id: "j".to_owned(),
        };
        let asker = |reach: Reach| Asker { principal: "n".to_owned(), reach };
        let named = |name: JobName, reach: Reach| {
            let name = name.within(&asker(reach));
            let all = [job("ann", "n"), job("ann", "m"), job("bob", "n")];
            all.map(|job| name.as_ref().is_some_and(|name| name.names(&job)))
        };
        let of_bob = || JobName { user: Some("bob".to_owned()), ..JobName::from("j") };
        assert_eq!(named("j".into(), Reach::All), [true, true, true]);
        assert_eq!(named(of_bob(), Reach::All), [false, false, true]);
        assert_eq!(named("j".into(), Reach::Owner("ann".to_owned())), [true, true, false]);
        assert_eq!(named(of_bob(), Reach::Owner("ann".to_owned())), [false, false, false]);
        assert_eq!(named("j".into(), Reach::Principal), [true, false, true]);
        assert_eq!(named(job("ann", "m").into(), Reach::Principal), [false, false, false]);
        assert_eq!(named("k".into(), Reach::All), [false, false, false]);
    }
}
