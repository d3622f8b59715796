//! The people behind the posts: who posts how often, and the one name, age, joining date, place
//! and following that each of them has.
//!
//! In the source each column of a person is the least of one draw per post, which is why those
//! who post most are youngest, joined first and live in countries early in the alphabet. The
//! same is done here, and then bent to the published counts.

use std::{collections::HashSet, fmt};

use super::{
    chance,
    text::{self, Name},
};
use crate::emulate::mt19937::Random;

/// How many people have so many posts: `(posts, people)`.
const PEOPLE_BY_POSTS: [(usize, usize); 42] = [
    (244, 1),
    (140, 1),
    (88, 2),
    (86, 2),
    (81, 1),
    (68, 1),
    (60, 1),
    (54, 1),
    (53, 1),
    (49, 1),
    (47, 1),
    (45, 2),
    (44, 1),
    (38, 1),
    (36, 1),
    (35, 3),
    (32, 1),
    (31, 1),
    (30, 1),
    (28, 3),
    (26, 1),
    (24, 4),
    (23, 1),
    (21, 3),
    (20, 3),
    (19, 5),
    (18, 7),
    (17, 1),
    (16, 5),
    (15, 6),
    (14, 8),
    (13, 8),
    (12, 9),
    (11, 11),
    (10, 25),
    (9, 22),
    (8, 35),
    (7, 36),
    (6, 65),
    (5, 88),
    (4, 156),
    (3, 272),
];
const N_WITH_TWO_POSTS: usize = 640;
const N_WITH_ONE_POST: usize = 3_869;

/// Rank by posts of the person whose pins hold nothing but placeholders.
pub(super) const NAMELESS: usize = 2;

/// Inclusive ages with the number of people.
const AGES: [(u8, u8, usize); 4] = [(20, 24, 1_010), (25, 35, 1_591), (36, 50, 1_742), (51, 60, 964)];

/// Inclusive joining dates, in seconds since 1970, with the number of people.
const JOINED: [(i64, i64, usize); 3] = [
    (1_445_397_467, 1_451_606_399, 841),   // 2015-10-21 03:17:47 to the end of the year
    (1_451_606_400, 1_483_228_799, 2_760), // 2016
    (1_483_228_800, 1_508_496_266, 1_706), // 2017 until 10-20 10:44:26
];

/// Latitude and longitude in millionths of a degree, inclusive.
const LATITUDES: (i64, i64) = (-89_979_600, 89_994_600);
const LONGITUDES: (i64, i64) = (-179_908_000, 179_935_000);

/// One line each: the number of posts, then the name.
const COUNTRIES: &str = include_str!("countries.txt");
const FIRST_NAMES: &str = include_str!("first_names.txt");
const LAST_NAMES: &str = include_str!("last_names.txt");

/// The home of the one person with 15 M followers.
const HOME_OF_THE_MOST_FOLLOWED: &str = "Anguilla";

/// Followers by share of posts, in ten-thousandths; between two points on a straight line.
const PLAIN: [(u32, u32); 5] = [(0, 0), (500, 28), (1_000, 222), (1_500, 760), (1_640, 999)];
const THOUSANDS: [(u32, u32); 17] = [
    (1_640, 1),
    (2_000, 2),
    (2_500, 4),
    (3_000, 6),
    (3_500, 10),
    (4_000, 17),
    (4_500, 24),
    (5_000, 32),
    (5_500, 46),
    (6_000, 63),
    (6_500, 92),
    (7_000, 135),
    (7_500, 221),
    (8_000, 383),
    (8_500, 578),
    (9_000, 942),
    (9_227, 985),
];
/// Millions until this share, as steps: nobody has 7 M.
const MILLIONS: [(u32, u8); 7] = [(9_347, 1), (9_697, 2), (9_744, 3), (9_775, 4), (9_958, 5), (9_974, 6), (10_000, 8)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followers {
    /// `User Info Error`
    Unknown,
    /// 0 to 999
    Plain(u32),
    /// 1k to 985k
    Thousands(u32),
    /// 1M to 15M
    Millions(u8),
}

impl fmt::Display for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("User Info Error"),
            Self::Plain(n) => write!(f, "{n}"),
            Self::Thousands(n) => write!(f, "{n}k"),
            Self::Millions(n) => write!(f, "{n}M"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Person {
    pub first_name: &'static str,
    pub last_name: &'static str,
    pub age: u8,
    /// Seconds since 1970.
    pub date_joined: i64,
    pub country: &'static str,
    pub latitude: f64,
    pub longitude: f64,
    pub poster_name: String,
    pub followers: Followers,
    /// Some posts were read when the count stood a thousand higher.
    pub followers_drift: bool,
    pub n_posts: usize,
}

/// Everyone, by falling number of posts.
pub(super) fn generate(random: &mut Random) -> Vec<Person> {
    let n_posts = posts_per_person();
    let ages = ages(&n_posts, random);
    let joined = joining_dates(&n_posts, random);
    let countries = countries(&n_posts, random);
    let places = places(&n_posts, random);
    let names = names(&n_posts, random);
    let mut poster_names = HashSet::new();
    let mut people: Vec<Person> = (0..n_posts.len())
        .map(|i| Person {
            first_name: names[i].first,
            last_name: names[i].last,
            age: ages[i],
            date_joined: joined[i],
            country: countries[i],
            latitude: places[i].0,
            longitude: places[i].1,
            poster_name: poster_name(names[i], &mut poster_names, random),
            followers: Followers::Unknown,
            followers_drift: false,
            n_posts: n_posts[i],
        })
        .collect();
    give_followers(&mut people, random);
    people[NAMELESS].poster_name = "User Info Error".to_owned();
    people[NAMELESS].followers = Followers::Unknown;
    people[NAMELESS].followers_drift = false;
    people
}

fn posts_per_person() -> Vec<usize> {
    let few = [(2, N_WITH_TWO_POSTS), (1, N_WITH_ONE_POST)];
    let counts = PEOPLE_BY_POSTS.iter().chain(&few);
    counts.flat_map(|(n_posts, n_people)| std::iter::repeat_n(*n_posts, *n_people)).collect()
}

fn least_of(n: usize, random: &mut Random) -> u32 {
    (0..n).map(|_| random.next_u32()).min().unwrap_or_default()
}

/// `draw` scaled to `[0, n)`.
fn scaled(draw: u32, n: usize) -> usize {
    ((u64::from(draw) * n as u64) >> 32) as usize
}

/// People in the order of the least of one draw per post.
fn ranking(n_posts: &[usize], random: &mut Random) -> Vec<usize> {
    let scores: Vec<u32> = n_posts.iter().map(|n| least_of(*n, random)).collect();
    let mut order: Vec<usize> = (0..n_posts.len()).collect();
    order.sort_unstable_by_key(|i| (scores[*i], *i));
    order
}

fn ages(n_posts: &[usize], random: &mut Random) -> Vec<u8> {
    let by_rank = AGES.iter().flat_map(|(low, high, n_people)| {
        let n_ages = usize::from(high - low) + 1;
        (0..*n_people).map(move |i| low + (i * n_ages / n_people) as u8)
    });
    let mut ages = vec![0; n_posts.len()];
    for (person, age) in ranking(n_posts, random).into_iter().zip(by_rank) {
        ages[person] = age;
    }
    ages
}

/// All different.
fn joining_dates(n_posts: &[usize], random: &mut Random) -> Vec<i64> {
    let mut by_rank = Vec::with_capacity(n_posts.len());
    for (first, last, n_people) in JOINED {
        by_rank.extend(text::distinct_between(first, last, n_people, random));
    }
    by_rank[0] = JOINED[0].0;
    *by_rank.last_mut().expect("JOINED is not empty") = JOINED[2].1;
    let mut dates = vec![0; n_posts.len()];
    for (person, date) in ranking(n_posts, random).into_iter().zip(by_rank) {
        dates[person] = date;
    }
    dates
}

/// Fills every country with exactly its number of posts.
fn countries(n_posts: &[usize], random: &mut Random) -> Vec<&'static str> {
    let (mut room, names): (Vec<usize>, Vec<&str>) = COUNTRIES
        .lines()
        .map(|line| line.split_once(' ').expect("a line of countries.txt is a number and a name"))
        .map(|(n, name)| (n.parse::<usize>().expect("a line of countries.txt begins with a number"), name))
        .unzip();
    let position = |name: &str| names.iter().position(|n| *n == name).expect("the country is in countries.txt");
    let settled = [position("Algeria"), position("Albania"), position("Albania")];
    let n_several = n_posts.len() - N_WITH_ONE_POST;
    let mut homes = Vec::with_capacity(n_posts.len());
    for (person, n) in n_posts[..n_several].iter().enumerate() {
        let wished = scaled(least_of(*n, random), names.len());
        let wished = settled.get(person).copied().unwrap_or(wished);
        let home = (wished..names.len()).chain(0..wished).find(|country| room[*country] >= *n);
        let home = home.expect("people with one post leave room for all others");
        room[home] -= n;
        homes.push(home);
    }
    let mut left: Vec<usize> =
        room.iter().enumerate().flat_map(|(country, n)| std::iter::repeat_n(country, *n)).collect();
    text::shuffle(&mut left, random);
    homes.extend(left);
    homes.into_iter().map(|country| names[country]).collect()
}

/// Latitude and longitude with six significant digits, as a single-precision column shows them.
fn places(n_posts: &[usize], random: &mut Random) -> Vec<(f64, f64)> {
    let mut coordinate = |n: usize, (low, high): (i64, i64)| {
        let micro = low + scaled(least_of(n, random), (high - low + 1) as usize) as i64;
        let unit = [100, 10, 1].into_iter().find(|unit| micro.abs() >= 100_000 * unit).unwrap_or(1);
        let unit = if micro.abs() >= 100_000_000 { 1_000 } else { unit };
        (micro / unit * unit) as f64 / 1e6
    };
    n_posts.iter().map(|n| (coordinate(*n, LATITUDES), coordinate(*n, LONGITUDES))).collect()
}

fn names(n_posts: &[usize], random: &mut Random) -> Vec<Name> {
    let (first, last) = (by_frequency(FIRST_NAMES), by_frequency(LAST_NAMES));
    let draw = |n: &usize| Name {
        first: first[scaled(least_of(*n, random), first.len())],
        last: last[scaled(least_of(*n, random), last.len())],
    };
    n_posts.iter().map(draw).collect()
}

/// Names, some of them more than once: every fifteenth is ten times as common as the others, so
/// that about 200 full names belong to more than one person.
fn by_frequency(names: &'static str) -> Vec<&'static str> {
    let frequency = |i: usize| if i % 15 == 7 { 10 } else { 1 };
    names.lines().enumerate().flat_map(|(i, name)| std::iter::repeat_n(name, frequency(i))).collect()
}

fn poster_name(person: Name, taken: &mut HashSet<String>, random: &mut Random) -> String {
    loop {
        let mut name = text::poster_name(person, random);
        if chance(17, 1_000, random) {
            name.push(' ');
        }
        if taken.insert(name.clone()) {
            return name;
        }
    }
}

fn give_followers(people: &mut [Person], random: &mut Random) {
    let mut score = |n_posts: usize| {
        let n_draws = 1 + 3 * n_posts.ilog2() as usize / 2;
        (0..n_draws).map(|_| random.next_u32()).max().unwrap_or_default()
    };
    let scores: Vec<u32> = people.iter().map(|p| score(p.n_posts)).collect();
    let mut order: Vec<usize> = (0..people.len()).filter(|i| *i != NAMELESS).collect();
    order.sort_unstable_by_key(|i| (scores[*i], *i));
    let total: usize = order.iter().map(|i| people[*i].n_posts).sum();
    let mut before = 0;
    for i in order {
        let person = &mut people[i];
        let share = (before + person.n_posts / 2) * 10_000 / total;
        person.followers = followers_at(share as u32);
        before += person.n_posts;
    }
    let most_followed = people
        .iter_mut()
        .find(|p| p.country == HOME_OF_THE_MOST_FOLLOWED && (5..=12).contains(&p.n_posts))
        .expect("somebody there has a handful of posts");
    most_followed.followers = Followers::Millions(15);
    for person in people.iter_mut().filter(|p| p.n_posts > 2) {
        let can_drift = matches!(person.followers, Followers::Thousands(n) if n < 985);
        person.followers_drift = can_drift && chance(1, 40, random);
    }
}

fn followers_at(share: u32) -> Followers {
    if share < PLAIN[PLAIN.len() - 1].0 {
        return Followers::Plain(on_line(&PLAIN, share));
    }
    if share < THOUSANDS[THOUSANDS.len() - 1].0 {
        return Followers::Thousands(on_line(&THOUSANDS, share));
    }
    let step = MILLIONS.iter().find(|(until, _)| share < *until);
    Followers::Millions(step.expect("a share is below 10,000").1)
}

fn on_line(points: &[(u32, u32)], x: u32) -> u32 {
    let right = points.iter().position(|p| x < p.0).expect("x lies before the last point");
    let ((x0, y0), (x1, y1)) = (points[right - 1], points[right]);
    y0 + (y1 - y0) * (x - x0) / (x1 - x0)
}
