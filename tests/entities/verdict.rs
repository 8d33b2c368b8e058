//! Compares a random history with a model: entities that do one operation after the other.
//!
//! Verified of each entity's list of labels, which is the order in which the server says that everything happened:
//! nothing is lost, doubled or made up; every answer tells the place that its operation has; each sender's operations
//! are in its order (S-12.23), also where the sender is an entity; the operations of a critical section stand side by
//! side, and sections that share entities come in the same order at all of them (S-12.29); what was answered before
//! something else was asked stands before it, so the list is a linearization; and every state that a client or an
//! orchestration was shown is a beginning of the list.
//! Not verified: the order between a signal's acknowledgement and others' operations, which locks may turn round; what
//! became of orchestrations that were terminated, whose operations may be missing; and the states that workers are
//! handed, which a crash may take back as long as nobody else has seen them.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::journal::{Kind, Notes, echo, parts, spawned_label};

/// Lists of all entities, in the order of [`ENTITIES`](crate::journal::ENTITIES).
pub type Lists = Vec<Vec<String>>;

/// Labels that have to be there and are not, with the entity where they belong. `lenient`: senders that were terminated.
pub fn missing(notes: &Notes, lists: &Lists, lenient: &HashSet<String>) -> Vec<(String, usize)> {
    let present: HashSet<(&str, usize)> = lists
        .iter()
        .enumerate()
        .flat_map(|(entity, list)| list.iter().map(move |label| (label.as_str(), entity)))
        .collect();
    let mut wanted = Vec::new();
    for (label, asked) in &notes.asked {
        if !lenient.contains(parts(label).0) {
            wanted.push((label.clone(), asked.entity));
        }
        if present.contains(&(label.as_str(), asked.entity)) {
            match asked.kind {
                Kind::Relay(target) => wanted.push((echo(label), target)),
                Kind::Spawn(target) => wanted.push((spawned_label(label), target)),
                Kind::Plain | Kind::Delayed => {}
            }
        }
    }
    wanted.retain(|(label, entity)| !present.contains(&(label.as_str(), *entity)));
    wanted
}

/// Everything that a history and its lists break.
pub fn judge(notes: &Notes, lists: &Lists, lenient: &HashSet<String>) -> Vec<String> {
    let mut broken = notes.broken.clone();
    for (label, entity) in missing(notes, lists, lenient) {
        broken.push(format!("{label} is missing at {entity}"));
    }
    let places = places(lists, &mut broken);
    nothing_made_up(notes, &places, &mut broken);
    answers_tell_places(notes, &places, &mut broken);
    senders_keep_their_order(notes, lists, &places, &mut broken);
    let spans = spans(notes, &places, lenient);
    sections_are_undivided(lists, &spans, &mut broken);
    sections_agree(&spans, &mut broken);
    for entity in 0..lists.len() {
        time_runs_forward(notes, entity, &places, &mut broken);
    }
    what_was_shown_was_true(notes, lists, &mut broken);
    broken
}

/// Entity and place of each label.
type Places<'a> = HashMap<&'a str, (usize, usize)>;

fn places<'a>(lists: &'a Lists, broken: &mut Vec<String>) -> Places<'a> {
    let mut places = Places::new();
    for (entity, list) in lists.iter().enumerate() {
        for (place, label) in list.iter().enumerate() {
            if let Some(before) = places.insert(label, (entity, place)) {
                broken.push(format!(
                    "{label} is at {before:?} and {:?}",
                    (entity, place)
                ));
            }
        }
    }
    places
}

/// The label whose operation sent an echo.
fn origin(label: &str) -> Option<&str> {
    label.strip_suffix('\'')
}

fn nothing_made_up(notes: &Notes, places: &Places<'_>, broken: &mut Vec<String>) {
    for (label, (entity, _)) in places {
        let belongs = match origin(label) {
            Some(origin) => notes
                .asked
                .get(origin)
                .is_some_and(|asked| asked.kind == Kind::Relay(*entity)),
            None => notes
                .asked
                .get(*label)
                .is_some_and(|asked| asked.entity == *entity),
        };
        if !belongs {
            broken.push(format!("nobody asked {entity} for {label}"));
        }
    }
}

fn answers_tell_places(notes: &Notes, places: &Places<'_>, broken: &mut Vec<String>) {
    for (label, asked) in &notes.asked {
        let Some((_, answered)) = asked.answered else {
            continue;
        };
        let place = places.get(label.as_str()).copied();
        if place != Some((asked.entity, answered)) {
            broken.push(format!(
                "{label} was answered with {answered} at {} and is at {place:?}",
                asked.entity
            ));
        }
    }
}

/// S-12.23, and the same for what entities send.
fn senders_keep_their_order(
    notes: &Notes,
    lists: &Lists,
    places: &Places<'_>,
    broken: &mut Vec<String>,
) {
    for (entity, list) in lists.iter().enumerate() {
        let mut latest: HashMap<String, (usize, usize)> = HashMap::new();
        for label in list {
            let (sender, at) = match origin(label) {
                Some(origin) => match places.get(origin) {
                    Some((source, place)) => (format!("entity {source}"), (0, *place)),
                    None => continue,
                },
                None => {
                    let (sender, generation, number) = parts(label);
                    (sender.to_owned(), (generation, number))
                }
            };
            let is_delayed = notes
                .asked
                .get(label)
                .is_some_and(|asked| asked.kind == Kind::Delayed);
            if is_delayed {
                continue;
            }
            let before = latest.insert(sender.clone(), at);
            if before.is_some_and(|before| before > at) {
                broken.push(format!(
                    "S-12.23: at {entity} {label} of {sender} stands behind {before:?}"
                ));
            }
        }
    }
}

/// First and last place of each critical section at each of its entities.
type Spans<'a> = HashMap<(&'a str, usize), (usize, usize)>;

/// Those of terminated senders are left out: what they had asked for may come after their locks are gone (S-12.52).
fn spans<'a>(notes: &'a Notes, places: &Places<'_>, lenient: &HashSet<String>) -> Spans<'a> {
    let mut spans = Spans::new();
    for (label, asked) in &notes.asked {
        let place = places.get(label.as_str()).copied();
        let (Some(section), Some((entity, place))) = (&asked.section, place) else {
            continue;
        };
        if !lenient.contains(parts(label).0) {
            let span = spans.entry((section, entity)).or_insert((place, place));
            *span = (span.0.min(place), span.1.max(place));
        }
    }
    spans
}

/// S-12.29: while it is locked, an entity does only what the holder asks for.
fn sections_are_undivided(lists: &Lists, spans: &Spans<'_>, broken: &mut Vec<String>) {
    for ((section, entity), (first, last)) in spans {
        let (holder, generation, _) = parts(&lists[*entity][*first]);
        for label in &lists[*entity][*first..=*last] {
            let is_holders =
                origin(label).is_none() && (parts(label).0, parts(label).1) == (holder, generation);
            if !is_holders {
                broken.push(format!(
                    "S-12.29: {label} stands within section {section} of {holder} at {entity}"
                ));
            }
        }
    }
}

/// Sections that share entities exclude each other as wholes.
fn sections_agree(spans: &Spans<'_>, broken: &mut Vec<String>) {
    let mut sections: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
    for ((section, entity), (first, _)) in spans {
        sections.entry(section).or_default().push((*entity, *first));
    }
    let all: Vec<_> = sections.into_iter().collect();
    for (at, (one, ones)) in all.iter().enumerate() {
        for (other, others) in &all[at + 1..] {
            let shared = ones.iter().filter_map(|(entity, place)| {
                let same = others.iter().find(|(other, _)| other == entity)?;
                Some(*place < same.1)
            });
            let orders: HashSet<bool> = shared.collect();
            if orders.len() > 1 {
                broken.push(format!("sections {one} and {other} have no one order"));
            }
        }
    }
}

/// What was answered before something else was asked for stands before it.
fn time_runs_forward(notes: &Notes, entity: usize, places: &Places<'_>, broken: &mut Vec<String>) {
    // Operations have odd ranks, and looks the even ones between them.
    let mut ranked: Vec<(usize, Instant, Option<Instant>, &str)> = Vec::new();
    for (label, (at, place)) in places {
        let asked = notes.asked.get(origin(label).unwrap_or(label));
        if let Some(asked) = asked.filter(|_| *at == entity) {
            let answered = asked.answered.filter(|_| origin(label).is_none());
            let answered = answered.map(|(time, _)| time);
            ranked.push((2 * place + 1, asked.at, answered, label));
        }
    }
    for (label, look) in &notes.looks {
        if let (true, Some((time, length, _))) = (look.entity == entity, &look.answered) {
            ranked.push((2 * length, look.at, Some(*time), label));
        }
    }
    ranked.sort_unstable();
    let mut latest: Option<(Instant, &str)> = None;
    for same_rank in ranked.chunk_by(|one, other| one.0 == other.0) {
        for (_, _, answered, label) in same_rank {
            if let (Some(answered), Some((asked, other))) = (answered, latest)
                && *answered < asked
            {
                broken.push(format!(
                    "{label} was answered before {other} was asked for, and stands behind it"
                ));
            }
        }
        let asked = same_rank
            .iter()
            .map(|(_, asked, _, label)| (*asked, *label));
        latest = latest.into_iter().chain(asked).max();
    }
}

fn what_was_shown_was_true(notes: &Notes, lists: &Lists, broken: &mut Vec<String>) {
    let seen = notes.looks.values().filter_map(|look| {
        let (_, length, last) = look.answered.as_ref()?;
        Some((look.entity, *length, last))
    });
    for (entity, length, last) in seen {
        let truth = match length {
            0 => Some(""),
            _ => lists[entity].get(length - 1).map(String::as_str),
        };
        if truth != Some(last.as_str()) {
            broken.push(format!(
                "{entity} was shown with {length} labels up to '{last}', which is {truth:?}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::Journal;

    /// Two senders at one entity: `a` calls twice and is answered, then `b` signals once and relays once.
    fn history() -> (Journal, Lists) {
        let journal = Journal::default();
        for (label, kind, section) in [
            ("a.0.1", Kind::Plain, Some("s")),
            ("a.0.2", Kind::Plain, Some("s")),
        ] {
            journal.ask(label, 0, kind, section);
        }
        journal.answer("a.0.1", 0);
        journal.answer("a.0.2", 1);
        std::thread::sleep(Duration::from_millis(1));
        journal.ask("b.0.1", 0, Kind::Plain, None);
        journal.ask("b.0.2", 0, Kind::Relay(1), None);
        let list = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
        let lists = vec![
            list(&["a.0.1", "a.0.2", "b.0.1", "b.0.2"]),
            list(&["b.0.2'"]),
        ];
        (journal, lists)
    }

    fn verdict(journal: &Journal, lists: &Lists) -> String {
        judge(&journal.notes(), lists, &HashSet::new()).join("\n")
    }

    #[test]
    fn a_sound_history_passes() {
        let (journal, lists) = history();
        assert_eq!(verdict(&journal, &lists), "");
    }

    #[test]
    fn every_kind_of_damage_is_noticed() {
        type Damage = fn(&mut Lists);
        let damages: [(&str, Damage); 6] = [
            ("a.0.1 is at", |lists| lists[1].push("a.0.1".to_owned())),
            ("b.0.1 is missing", |lists| drop(lists[0].remove(2))),
            ("b.0.2' is missing", |lists| lists[1].clear()),
            ("nobody asked", |lists| lists[1].push("c.0.1".to_owned())),
            ("S-12.23", |lists| lists[0].swap(2, 3)),
            ("S-12.29", |lists| lists[0].swap(1, 2)),
        ];
        for (words, damage) in damages {
            let (journal, mut lists) = history();
            damage(&mut lists);
            let verdict = verdict(&journal, &lists);
            assert!(verdict.contains(words), "{words}: {verdict}");
        }
    }

    #[test]
    fn an_order_against_time_is_noticed() {
        let (journal, mut lists) = history();
        lists[0].rotate_left(2);
        let verdict = verdict(&journal, &lists);
        let words = "a.0.1 was answered before b.0.2 was asked for";
        assert!(verdict.contains(words), "{verdict}");
    }

    #[test]
    fn a_state_that_never_was_is_noticed() {
        let (journal, lists) = history();
        journal.look("b.0.3", 0);
        journal.saw("b.0.3", 2, "b.0.1");
        assert!(verdict(&journal, &lists).contains("was shown"));
    }

    #[test]
    fn only_terminated_senders_may_lose_operations() {
        let (journal, mut lists) = history();
        lists[0].truncate(2);
        lists[1].clear();
        let lenient = HashSet::from(["b".to_owned()]);
        assert_eq!(
            judge(&journal.notes(), &lists, &lenient),
            Vec::<String>::new()
        );
    }
}
