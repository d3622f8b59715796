//! The three source tables, made up: their shape, sizes, frequencies and oddities are those of
//! the tables that the posting scripts read, their content is nobody's.
//!
//! Always the same, on every machine and with every compiler: one generator with a fixed seed
//! that has nothing to do with the seed of the draws, integers, and no order of a hash map.

use clap::ValueEnum;
use uuid::Uuid;

use crate::emulate::{
    encoding::{Encoding, ObjectWriter},
    mt19937::Random,
};

mod vocabulary;

mod text;

mod people;

use people::NAMELESS;
pub use people::{Followers, Person};
use text::Media;
use vocabulary::CATEGORIES;

/// Rows of each table; the keys are `0..N_POSTS`.
pub const N_POSTS: usize = 11_154;

const SEED: u64 = 20_221_019;

/// How many posts are of each odd kind. Those of the nameless person come on top.
const N_STORIES: usize = 665;
const N_STORIES_WITHOUT_IMAGE: usize = 114;
const N_VIDEOS: usize = 320;
const N_VIDEOS_WITHOUT_DESCRIPTION: usize = 11;
const N_IMAGES_WITHOUT_DESCRIPTION: usize = 160;
const N_WITHOUT_TAGS: usize = 40;
const N_WITH_EIGHT_TAGS: usize = 23;
const N_TITLES_OF_TWO_LINES: usize = 11;
const N_TITLES_WITH_TRAILING_BLANK: usize = 17;

/// Rows with neither kind nor image, and the row with an empty title.
const WITHOUT_KIND: [usize; 2] = [360, 4_727];
const EMPTY_TITLE: usize = 5_658;

/// Posts per year, between the first and the last moment that is in the table; seconds since
/// 1970, inclusive.
const POSTED: [(i64, i64, usize); 6] = [
    (1_508_426_022, 1_514_764_799, 432),   // 2017 from 10-19 15:13:42
    (1_514_764_800, 1_546_300_799, 2_316), // 2018
    (1_546_300_800, 1_577_836_799, 2_192), // 2019
    (1_577_836_800, 1_609_459_199, 2_172), // 2020
    (1_609_459_200, 1_640_995_199, 2_208), // 2021
    (1_640_995_200, 1_666_202_066, 1_834), // 2022 until 10-19 17:54:26
];

/// Texts that the source puts where it knows nothing.
pub mod placeholder {
    pub const TITLE: &str = "No Title Data Available";
    pub const DESCRIPTION: &str = "No description available";
    pub const STORY_DESCRIPTION: &str = "No description available Story format";
    /// In `poster_name` and `follower_count`.
    pub const USER: &str = "User Info Error";
    pub const TAGS: &str = "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e";
    pub const IMAGE: &str = "Image src error.";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Table {
    Pin,
    Geo,
    User,
}

impl Table {
    pub const ALL: [Self; 3] = [Self::Pin, Self::Geo, Self::User];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Geo => "geo",
            Self::User => "user",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Image,
    Video,
    Story,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Story => "multi-video(story page format)",
        }
    }
}

/// What the three rows of one key hold, beside the person's.
#[derive(Clone, Debug)]
pub struct Post {
    /// Index into the people.
    pub person: usize,
    pub unique_id: Uuid,
    pub title: String,
    pub description: String,
    pub follower_count: String,
    pub tag_list: String,
    pub kind: Option<Kind>,
    /// None where the source failed to download it.
    pub image_src: Option<String>,
    pub category: &'static str,
    /// Seconds since 1970, without a zone.
    pub timestamp: i64,
}

pub struct Tables {
    people: Vec<Person>,
    posts: Vec<Post>,
}

impl Tables {
    pub fn generate() -> Self {
        let mut random = Random::new(SEED);
        let people = people::generate(&mut random);
        let posters = posters(&people, &mut random);
        let timestamps = timestamps(&people, &posters, &mut random);
        let oddities = oddities(&posters, &mut random);
        let mut posts = Vec::with_capacity(N_POSTS);
        for category in &CATEGORIES {
            for row in category.first_row..category.end_row {
                let person = posters[row];
                let oddity = oddities[row];
                let (title, description) = title_and_description(row, oddity, category, &mut random);
                posts.push(Post {
                    person,
                    unique_id: random.uuid4(),
                    title,
                    description,
                    follower_count: follower_count(&people[person], &mut random),
                    tag_list: tag_list(oddity, category, &mut random),
                    kind: oddity.kind,
                    image_src: image_src(oddity, &mut random),
                    category: category.name,
                    timestamp: timestamps[row],
                });
            }
        }
        Self { people, posts }
    }

    pub fn post(&self, row: usize) -> &Post {
        &self.posts[row]
    }

    /// Who posted the row.
    pub fn person(&self, row: usize) -> &Person {
        &self.people[self.posts[row].person]
    }

    /// One row as JSON, columns in the order of `SELECT *`.
    pub fn row(&self, table: Table, row: usize, encoding: Encoding) -> String {
        match table {
            Table::Pin => self.pin(row, encoding),
            Table::Geo => self.geo(row, encoding),
            Table::User => self.user(row, encoding),
        }
    }

    pub fn pin(&self, row: usize, encoding: Encoding) -> String {
        let (post, person) = (self.post(row), self.person(row));
        ObjectWriter::new(encoding, 1_024)
            .number("index", row)
            .number("unique_id", format_args!("\"{}\"", post.unique_id))
            .text("title", &post.title)
            .text("description", &post.description)
            .text("poster_name", &person.poster_name)
            .text("follower_count", &post.follower_count)
            .text("tag_list", &post.tag_list)
            .text_or_null("is_image_or_video", post.kind.map(Kind::name))
            .text("image_src", post.image_src.as_deref().unwrap_or(placeholder::IMAGE))
            .number("downloaded", u8::from(post.image_src.is_some()))
            .text("save_location", &format!("Local save in /data/{}", post.category))
            .text("category", post.category)
            .finish()
    }

    /// The pin in the field order of the FastAPI model that one of the scripts posts to.
    pub fn pin_for_fastapi(&self, row: usize, encoding: Encoding) -> String {
        let (post, person) = (self.post(row), self.person(row));
        ObjectWriter::new(encoding, 1_024)
            .text("category", post.category)
            .number("index", row)
            .number("unique_id", format_args!("\"{}\"", post.unique_id))
            .text("title", &post.title)
            .text("description", &post.description)
            .text("poster_name", &person.poster_name)
            .text("follower_count", &post.follower_count)
            .text("tag_list", &post.tag_list)
            .text_or_null("is_image_or_video", post.kind.map(Kind::name))
            .text("image_src", post.image_src.as_deref().unwrap_or(placeholder::IMAGE))
            .number("downloaded", u8::from(post.image_src.is_some()))
            .text("save_location", &format!("Local save in /data/{}", post.category))
            .finish()
    }

    pub fn geo(&self, row: usize, encoding: Encoding) -> String {
        let person = self.person(row);
        ObjectWriter::new(encoding, 160)
            .number("ind", row)
            .datetime("timestamp", self.post(row).timestamp)
            .float("latitude", person.latitude)
            .float("longitude", person.longitude)
            .text("country", person.country)
            .finish()
    }

    pub fn user(&self, row: usize, encoding: Encoding) -> String {
        let person = self.person(row);
        ObjectWriter::new(encoding, 128)
            .number("ind", row)
            .text("first_name", person.first_name)
            .text("last_name", person.last_name)
            .number("age", person.age)
            .datetime("date_joined", person.date_joined)
            .finish()
    }
}

/// True in `n` of `of` cases.
fn chance(n: u64, of: u64, random: &mut Random) -> bool {
    random.below(of) < n
}

/// Who posted each row. Half of those who post more than once keep to one category.
fn posters(people: &[Person], random: &mut Random) -> Vec<usize> {
    let mut room: Vec<usize> = CATEGORIES.iter().map(|c| c.end_row - c.first_row).collect();
    let mut left = N_POSTS;
    let mut by_category: Vec<Vec<usize>> = vec![Vec::new(); CATEGORIES.len()];
    for (i, person) in people.iter().enumerate() {
        let wanders = i == NAMELESS || chance(1, 2, random);
        let main = category_with_room(&room, left, random);
        for _ in 0..person.n_posts {
            let strays = room[main] == 0 || wanders && chance(if i == NAMELESS { 3 } else { 1 }, 4, random);
            let category = if strays { category_with_room(&room, left, random) } else { main };
            room[category] -= 1;
            left -= 1;
            by_category[category].push(i);
        }
    }
    let mut posters = Vec::with_capacity(N_POSTS);
    for mut category in by_category {
        text::shuffle(&mut category, random);
        posters.extend(category);
    }
    // These rows have content, so they are not the nameless person's.
    for row in WITHOUT_KIND.into_iter().chain([EMPTY_TITLE]) {
        if posters[row] == NAMELESS {
            posters.swap(row, row + 1);
        }
    }
    posters
}

/// A category, drawn in proportion to the rows that it still lacks.
fn category_with_room(room: &[usize], left: usize, random: &mut Random) -> usize {
    let mut at = random.below(left as u64) as usize;
    for (category, n) in room.iter().enumerate() {
        if at < *n {
            return category;
        }
        at -= n;
    }
    unreachable!("the rooms add up to what is left")
}

/// All different; nobody posts before joining.
fn timestamps(people: &[Person], posters: &[usize], random: &mut Random) -> Vec<i64> {
    let mut timestamps = Vec::with_capacity(N_POSTS);
    for (first, last, n) in POSTED {
        timestamps.extend(text::distinct_between(first, last, n, random));
    }
    timestamps[0] = POSTED[0].0;
    timestamps[N_POSTS - 1] = POSTED[5].1;
    text::shuffle(&mut timestamps, random);
    let joined = |row: usize| people[posters[row]].date_joined;
    for row in 0..N_POSTS {
        if timestamps[row] >= joined(row) {
            continue;
        }
        let other = (0..N_POSTS).find(|o| timestamps[row] >= joined(*o) && timestamps[*o] >= joined(row));
        timestamps.swap(row, other.expect("nearly everyone joined before the first post"));
    }
    timestamps
}

/// What is unusual about a row; nearly always nothing.
#[derive(Clone, Copy)]
struct Oddity {
    kind: Option<Kind>,
    is_nameless: bool,
    has_image: bool,
    has_description: bool,
    has_tags: bool,
    has_eight_tags: bool,
    title_of_two_lines: bool,
    title_with_blank: bool,
    /// A real description, but hardly one.
    terse: Option<&'static str>,
}

const ORDINARY: Oddity = Oddity {
    kind: Some(Kind::Image),
    is_nameless: false,
    has_image: true,
    has_description: true,
    has_tags: true,
    has_eight_tags: false,
    title_of_two_lines: false,
    title_with_blank: false,
    terse: None,
};

fn oddities(posters: &[usize], random: &mut Random) -> Vec<Oddity> {
    let mut oddities = vec![ORDINARY; N_POSTS];
    let mut rows: Vec<usize> = Vec::with_capacity(N_POSTS);
    for (row, person) in posters.iter().enumerate() {
        let oddity = &mut oddities[row];
        if *person == NAMELESS {
            *oddity =
                Oddity { kind: Some(Kind::Story), is_nameless: true, has_image: false, has_tags: false, ..ORDINARY };
        } else if WITHOUT_KIND.contains(&row) {
            *oddity = Oddity { kind: None, has_image: false, ..ORDINARY };
        } else if row != EMPTY_TITLE {
            rows.push(row);
        }
    }
    text::shuffle(&mut rows, random);
    let mut rows = rows.into_iter();
    for (i, row) in rows.by_ref().take(N_STORIES).enumerate() {
        oddities[row].kind = Some(Kind::Story);
        oddities[row].has_image = i >= N_STORIES_WITHOUT_IMAGE;
    }
    for (i, row) in rows.by_ref().take(N_VIDEOS).enumerate() {
        oddities[row].kind = Some(Kind::Video);
        oddities[row].has_description = i >= N_VIDEOS_WITHOUT_DESCRIPTION;
    }
    rows.by_ref().take(N_IMAGES_WITHOUT_DESCRIPTION).for_each(|row| oddities[row].has_description = false);
    rows.by_ref().take(N_WITHOUT_TAGS).for_each(|row| oddities[row].has_tags = false);
    rows.by_ref().take(N_WITH_EIGHT_TAGS).for_each(|row| oddities[row].has_eight_tags = true);
    rows.by_ref().take(N_TITLES_OF_TWO_LINES).for_each(|row| oddities[row].title_of_two_lines = true);
    rows.by_ref().take(N_TITLES_WITH_TRAILING_BLANK).for_each(|row| oddities[row].title_with_blank = true);
    for (row, terse) in rows.zip(["Untitled", "Art."]) {
        oddities[row].terse = Some(terse);
    }
    oddities
}

fn title_and_description(
    row: usize,
    oddity: Oddity,
    category: &vocabulary::Category,
    random: &mut Random,
) -> (String, String) {
    let (mut title, mut description) = text::words(category, random);
    if oddity.is_nameless {
        placeholder::TITLE.clone_into(&mut title);
    }
    if row == EMPTY_TITLE {
        title.clear();
    }
    if oddity.title_of_two_lines {
        title.push('\n');
        title.push_str(text::one_of(category.topics, random));
    }
    if oddity.title_with_blank {
        title.push(' ');
    }
    if oddity.kind == Some(Kind::Story) {
        placeholder::STORY_DESCRIPTION.clone_into(&mut description);
    } else if !oddity.has_description {
        placeholder::DESCRIPTION.clone_into(&mut description);
    } else if let Some(terse) = oddity.terse {
        terse.clone_into(&mut description);
    }
    (title, description)
}

fn follower_count(person: &Person, random: &mut Random) -> String {
    match person.followers {
        Followers::Thousands(n) if person.followers_drift && chance(1, 3, random) => {
            Followers::Thousands(n + 1).to_string()
        }
        followers => followers.to_string(),
    }
}

fn tag_list(oddity: Oddity, category: &vocabulary::Category, random: &mut Random) -> String {
    if !oddity.has_tags {
        return placeholder::TAGS.to_owned();
    }
    text::tags(category, if oddity.has_eight_tags { 8 } else { 9 }, random)
}

fn image_src(oddity: Oddity, random: &mut Random) -> Option<String> {
    let media = if oddity.kind == Some(Kind::Image) { Media::Image } else { Media::Video };
    oddity.has_image.then(|| text::image_src(media, random))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        collections::{BTreeMap, BTreeSet, HashMap},
        sync::LazyLock,
    };

    use serde_json::Value;

    use super::*;

    static TABLES: LazyLock<Tables> = LazyLock::new(Tables::generate);

    fn posts() -> impl Iterator<Item = (usize, &'static Post, &'static Person)> {
        (0..N_POSTS).map(|row| (row, TABLES.post(row), TABLES.person(row)))
    }

    fn count(is_so: impl Fn(usize, &Post, &Person) -> bool) -> usize {
        posts().filter(|(row, post, person)| is_so(*row, post, person)).count()
    }

    /// `actual` lies within `percent` of `expected`.
    fn assert_near(what: &str, actual: usize, expected: usize, percent: usize) {
        let apart = actual.abs_diff(expected);
        assert!(apart * 100 <= expected * percent, "{what}: {actual}, expected about {expected}");
    }

    #[test]
    fn the_content_is_the_same_with_every_compiler_and_machine() {
        // FNV-1a over all rows: when the word lists change, so does this number.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for table in Table::ALL {
            for row in 0..N_POSTS {
                for byte in TABLES.row(table, row, Encoding::default()).bytes() {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
        }
        assert_eq!(hash, 0xd15a_2c74_ef44_e48d, "{hash:#x}");
    }

    #[test]
    fn categories_are_ranges_of_the_index() {
        let starts = [0, 892, 1637, 2637, 3467, 4330, 5077, 5864, 6725, 7577, 8487, 9457, 10_316];
        let names = [
            "art",
            "beauty",
            "christmas",
            "diy-and-crafts",
            "education",
            "event-planning",
            "finance",
            "home-decor",
            "mens-fashion",
            "quotes",
            "tattoos",
            "travel",
            "vehicles",
        ];
        for (row, post, _) in posts() {
            let i = starts.iter().rposition(|start| *start <= row).unwrap();
            assert_eq!(post.category, names[i], "row {row}");
        }
    }

    #[test]
    fn posts_per_person_are_the_published_ones() {
        assert_eq!(TABLES.people.len(), 5_307);
        let mut n_posts: HashMap<usize, usize> = HashMap::new();
        posts().for_each(|(_, post, _)| *n_posts.entry(post.person).or_default() += 1);
        for (i, person) in TABLES.people.iter().enumerate() {
            assert_eq!(n_posts[&i], person.n_posts);
        }
        let top: Vec<usize> = TABLES.people.iter().take(12).map(|p| p.n_posts).collect();
        assert_eq!(top, [244, 140, 88, 88, 86, 86, 81, 68, 60, 54, 53, 49]);
    }

    #[test]
    fn a_person_is_one_name_one_place_one_poster() {
        let distinct = |key: fn(&Person) -> String| TABLES.people.iter().map(key).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|p| p.poster_name.clone()), 5_307);
        assert_eq!(distinct(|p| format!("{} {}", p.latitude, p.longitude)), 5_307);
        assert_eq!(distinct(|p| format!("{} {} {} {}", p.first_name, p.last_name, p.age, p.date_joined)), 5_307);
        assert_near("first names", distinct(|p| p.first_name.to_owned()), 595, 2);
        assert_near("last names", distinct(|p| p.last_name.to_owned()), 927, 5);
        assert_near("full names", distinct(|p| format!("{} {}", p.first_name, p.last_name)), 5_081, 3);
    }

    #[test]
    fn countries_have_exactly_their_posts() {
        let mut n_posts: BTreeMap<&str, usize> = BTreeMap::new();
        posts().for_each(|(_, _, person)| *n_posts.entry(person.country).or_default() += 1);
        assert_eq!(n_posts.len(), 243);
        for (country, n) in [
            ("Albania", 563),
            ("Algeria", 487),
            ("Afghanistan", 427),
            ("Aruba", 346),
            ("American Samoa", 317),
            ("Antarctica (the territory South of 60 deg S)", 134),
            ("Cote d'Ivoire", 61),
            ("Svalbard & Jan Mayen Islands", 13),
            ("United Arab Emirates", 5),
        ] {
            assert_eq!(n_posts[country], n, "{country}");
        }
    }

    #[test]
    fn ages_and_joining_years_are_in_the_published_proportions() {
        let groups = [(20, 24, 4_916, 1_010), (25, 35, 3_005, 1_591), (36, 50, 2_225, 1_742), (51, 60, 1_008, 964)];
        for (low, high, n_rows, n_people) in groups {
            let is_in = |p: &Person| (low..=high).contains(&p.age);
            assert_eq!(TABLES.people.iter().filter(|p| is_in(p)).count(), n_people, "{low}-{high}");
            assert_near(&format!("rows of age {low}-{high}"), count(|_, _, p| is_in(p)), n_rows, 7);
        }
        for (first, last, n_rows, n_people) in [
            ("2015-10-21T03:17:47", "2015-12-31T23:59:59", 4_507, 841),
            ("2016-01-01T00:00:00", "2016-12-31T23:59:59", 4_791, 2_760),
            ("2017-01-01T00:00:00", "2017-10-20T10:44:26", 1_856, 1_706),
        ] {
            let seconds = |text: &str| text.parse::<chrono::NaiveDateTime>().unwrap().and_utc().timestamp();
            let is_in = |p: &Person| (seconds(first)..=seconds(last)).contains(&p.date_joined);
            assert_eq!(TABLES.people.iter().filter(|p| is_in(p)).count(), n_people, "{first}");
            assert_near(first, count(|_, _, p| is_in(p)), n_rows, 7);
        }
        let dates: Vec<i64> = TABLES.people.iter().map(|p| p.date_joined).collect();
        assert_eq!((*dates.iter().min().unwrap(), *dates.iter().max().unwrap()), (1_445_397_467, 1_508_496_266));
    }

    #[test]
    fn posts_come_after_joining_at_moments_of_their_own() {
        let moments: BTreeSet<i64> = posts().map(|(_, post, _)| post.timestamp).collect();
        assert_eq!(moments.len(), N_POSTS);
        assert_eq!((*moments.first().unwrap(), *moments.last().unwrap()), (1_508_426_022, 1_666_202_066));
        assert_eq!(count(|_, post, person| post.timestamp < person.date_joined), 0);
        for (first, last, n) in POSTED {
            assert_eq!(moments.range(first..=last).count(), n);
        }
    }

    #[test]
    fn followers_are_in_the_published_proportions() {
        let ends_with = |end: char| count(|_, post, _| post.follower_count.ends_with(end));
        assert_near("thousands", ends_with('k'), N_POSTS * 753 / 1_000, 3);
        assert_near("millions", ends_with('M'), N_POSTS * 77 / 1_000, 15);
        assert_eq!(count(|_, post, _| post.follower_count == placeholder::USER), 88);
        let n_plain = count(|_, post, _| post.follower_count.bytes().all(|b| b.is_ascii_digit()));
        assert_near("plain", n_plain, N_POSTS * 163 / 1_000, 6);
        for (_, post, person) in posts() {
            let digits = post.follower_count.trim_end_matches(['k', 'M']);
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            assert!(is_number || post.follower_count == placeholder::USER, "{}", post.follower_count);
            assert_eq!(post.follower_count == "15M", person.country == "Anguilla" && post.follower_count == "15M");
        }
        let top: BTreeSet<usize> =
            posts().filter(|(_, post, _)| post.follower_count == "15M").map(|(_, post, _)| post.person).collect();
        assert_eq!(top.len(), 1, "one person has 15M");
        let drifting: BTreeSet<usize> = posts()
            .filter(|(_, post, person)| post.follower_count != person.followers.to_string())
            .map(|(_, post, _)| post.person)
            .collect();
        assert!((5..=40).contains(&drifting.len()), "{}", drifting.len());
    }

    #[test]
    fn placeholders_go_together_as_in_the_source() {
        let stories = count(|_, post, _| post.kind == Some(Kind::Story));
        assert_eq!(stories, 753);
        assert_near("stories", stories, N_POSTS * 68 / 1_000, 2);
        let mut n_nameless = 0;
        for (row, post, person) in posts() {
            let is_story = post.kind == Some(Kind::Story);
            assert_eq!(is_story, post.description == placeholder::STORY_DESCRIPTION, "row {row}");
            let marks = [
                post.title == placeholder::TITLE,
                person.poster_name == placeholder::USER,
                post.follower_count == placeholder::USER,
            ];
            assert!(marks.iter().all(|m| *m == marks[0]), "row {row}");
            if marks[0] {
                n_nameless += 1;
                assert_eq!(post.person, NAMELESS);
                assert!(is_story && post.image_src.is_none() && post.tag_list == placeholder::TAGS, "row {row}");
            }
            if post.image_src.is_none() {
                assert!(is_story || WITHOUT_KIND.contains(&row), "row {row}");
            }
            assert_eq!(post.kind.is_none(), WITHOUT_KIND.contains(&row));
            assert_eq!(post.title.is_empty(), row == EMPTY_TITLE);
        }
        assert_eq!(n_nameless, 88);
        assert_eq!(count(|_, post, _| post.image_src.is_none()), 88 + 114 + 2);
        assert_eq!(count(|_, post, _| post.description == placeholder::DESCRIPTION), 171);
        assert_eq!(count(|_, post, _| post.tag_list == placeholder::TAGS), 88 + 40);
        assert_eq!(count(|_, post, _| post.kind == Some(Kind::Video)), 320);
        for terse in ["Untitled", "Art."] {
            assert_eq!(count(|_, post, _| post.description == terse), 1);
        }
    }

    #[test]
    fn texts_are_as_awkward_as_in_the_source() {
        assert_eq!(count(|_, post, _| post.title.contains('\n')), N_TITLES_OF_TWO_LINES);
        assert_eq!(count(|_, post, _| post.title.ends_with(' ')), N_TITLES_WITH_TRAILING_BLANK);
        let n_cut = count(|_, post, _| post.description.ends_with("…\u{a0}"));
        assert_near("cut descriptions", n_cut, N_POSTS * 37 / 100, 8);
        assert_near("posters with a trailing blank", count(|_, _, p| p.poster_name.ends_with(' ')), 200, 60);
        let is_emoji = |c: char| u32::from(c) > 0x1_f000;
        assert!(count(|_, post, _| post.title.contains(is_emoji)) > 30);
        assert!(count(|_, post, _| post.description.contains(is_emoji)) > 30);
        assert!(count(|_, post, _| post.title.chars().any(|c| ('\u{3040}'..='\u{9fff}').contains(&c))) > 30);
        assert!(count(|_, _, p| p.poster_name.contains('|')) > 500);
        assert!(count(|_, _, p| p.poster_name.contains('{') && p.poster_name.contains('}')) > 5);
        assert!(count(|_, post, _| post.title.contains('"')) > 30);
        for (row, post, person) in posts() {
            assert!(post.title.chars().count() <= 200, "row {row}");
            assert!(post.description.chars().count() <= 180, "row {row}");
            assert!(person.poster_name.chars().count() <= 114, "row {row}: {}", person.poster_name);
            assert!(!post.description.is_empty() && !post.title.contains(['{', '}']), "row {row}: {}", post.title);
        }
    }

    #[test]
    fn tags_ids_and_images_have_their_shapes() {
        let ids: BTreeSet<Uuid> = posts().map(|(_, post, _)| post.unique_id).collect();
        assert_eq!(ids.len(), N_POSTS);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
        let n_tags = |n: usize| count(|_, post, _| post.tag_list.split(',').count() == n);
        assert_eq!((n_tags(8), n_tags(17), n_tags(9)), (23, 128, N_POSTS - 23 - 128));
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for (row, post, _) in posts() {
            let Some(image) = &post.image_src else { continue };
            let (folder, is_clip) = match post.kind {
                Some(Kind::Image) => ("https://i.pinimg.com/originals/", false),
                _ => ("https://i.pinimg.com/videos/thumbnails/originals/", true),
            };
            let path = image.strip_prefix(folder).unwrap_or_else(|| panic!("row {row}: {image}"));
            let [a, b, c, file]: [&str; 4] = path.split('/').collect::<Vec<_>>().try_into().unwrap();
            assert!(file.starts_with(&format!("{a}{b}{c}")), "{image}");
            let (hash, end) = file.split_at(32);
            assert!(hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{image}");
            assert_eq!(is_clip, end.contains("00001"), "{image}");
            *ends.entry(end).or_default() += 1;
        }
        let known: BTreeSet<&str> = [".jpg", ".png", ".webp", ".gif", ".0000001.jpg", "-00001.jpg"].into();
        assert_eq!(ends.keys().copied().collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn rows_are_json_in_column_order_of_the_usual_size() {
        let columns: [&[&str]; 3] = [
            &[
                "index",
                "unique_id",
                "title",
                "description",
                "poster_name",
                "follower_count",
                "tag_list",
                "is_image_or_video",
                "image_src",
                "downloaded",
                "save_location",
                "category",
            ],
            &["ind", "timestamp", "latitude", "longitude", "country"],
            &["ind", "first_name", "last_name", "age", "date_joined"],
        ];
        for ((table, columns), usual_bytes) in Table::ALL.into_iter().zip(columns).zip([690, 110, 100]) {
            let mut total_bytes = 0;
            for row in 0..N_POSTS {
                let text = TABLES.row(table, row, Encoding::default());
                total_bytes += text.len();
                let value: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(value[columns[0]], row);
                assert_eq!(value.as_object().unwrap().len(), columns.len());
                let places: Vec<usize> = columns.iter().map(|c| text.find(&format!("\"{c}\":")).unwrap()).collect();
                assert!(places.is_sorted(), "{text}");
            }
            assert_near(table.name(), total_bytes / N_POSTS, usual_bytes, 6);
        }
    }

    #[test]
    fn coordinates_have_six_significant_digits() {
        for person in &TABLES.people {
            for (value, limit) in [(person.latitude, 90.0), (person.longitude, 180.0)] {
                assert!(value.abs() < limit);
                let digits: String = format!("{value:?}").chars().filter(char::is_ascii_digit).collect();
                assert!(digits.trim_start_matches('0').len() <= 6, "{value:?}");
            }
        }
    }
}
