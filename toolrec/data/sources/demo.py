"""The demo: a made-up pool of movies whose users have planted attribute tastes, from a seed.

What is planted, and why no method is perfect: a user's next movie has the largest sum of

    taste         weights over genres and moods that are the user's own, and closeness to the user's era
    phase         a genre of the last movie pulls, unless a draw ends it (sequential structure)
    follow-up     every movie has a few successors that are likely right after it (sequential structure)
    popularity    a long-tailed quality of the movie, the same for all
    noise         Gumbel, so that the choice is a draw from a softmax

The constants were chosen for a pool that looks alive and are not fitted to any method's figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolrec.data.pool import MOVIES
from toolrec.data.raw import RawAttribute, RawData, RawInteractions, RawItems
from toolrec.errors import ConfigError

GENRES = (
    "Action", "Adventure", "Animation", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Horror", "Musical", "Romance", "Science Fiction",
)  # fmt: skip
MOODS = ("Bittersweet", "Cheerful", "Dark", "Dreamy", "Quiet", "Tense", "Warm", "Wild")
_ADJECTIVES = (
    "Amber", "Broken", "Burning", "Crimson", "Distant", "Electric", "Empty", "Fading", "Final", "Forgotten",
    "Frozen", "Gentle", "Golden", "Hidden", "Hollow", "Iron", "Last", "Little", "Lonely", "Lost",
    "Midnight", "Northern", "Open", "Paper", "Quiet", "Restless", "Scarlet", "Second", "Secret", "Silent",
    "Silver", "Sleeping", "Stolen", "Stubborn", "Velvet", "Wandering", "Western", "Wild", "Winter", "Wooden",
)  # fmt: skip
_NOUNS = (
    "Anchor", "Bakery", "Bridge", "Candle", "Carnival", "Cathedral", "Clockmaker", "Compass", "Detective", "Engine",
    "Falcon", "Ferry", "Garden", "Harbor", "Horizon", "Island", "Journey", "Kingdom", "Lantern", "Letter",
    "Lighthouse", "Machine", "Mirror", "Mountain", "Orchard", "Orchestra", "Passenger", "Photograph", "Piano", "Promise",
    "River", "Rocket", "Sailor", "Shadow", "Station", "Stranger", "Summer", "Telescope", "Theater", "Violin",
)  # fmt: skip
_PLACES = (
    "Alder Street", "Bellmoor", "Cape Sorrow", "Dunmarrow", "Eastgate", "Fern Hollow", "Glasswater", "Harrowfield",
    "Kestrel Bay", "Low Meadow", "Marrowstone", "Nine Elms", "Old Quarry", "Pinewick", "Saltmarsh", "the Seventh Hill",
    "Thornbury Lane", "Umberland", "the Valley", "Windmere",
)  # fmt: skip
FIRST_YEAR, LAST_YEAR = 1950, 2024
MIN_LENGTH, MAX_LENGTH = 8, 60

_TASTE_GENRE, _TASTE_MOOD, _TASTE_ERA = 2.4, 1.8, 2.2
_ERA_YEARS = 9.0
_PHASE_PULL, _PHASE_ENDS = 1.2, 0.25
_NUM_SUCCESSORS, _SUCCESSOR_PULL = 3, 2.6
_POPULARITY = 0.75
_STAR_QUANTILES = (0.06, 0.18, 0.45, 0.8)  # as in other pools of movies, most ratings are good ones
_FIRST_DAY_S = 1_577_836_800  # 2020-01-01


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Size and seed of the demo."""

    num_users: int = 1000
    num_items: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        # Titles are unique pairs of words; histories end well before the pool does.
        most = len(_ADJECTIVES) * len(_NOUNS)
        if not 2 * MAX_LENGTH <= self.num_items <= most:
            raise ConfigError("the demo cannot have that many items", value=self.num_items, allowed=f"{2 * MAX_LENGTH} to {most}")
        if not 1 <= self.num_users <= 1_000_000:
            raise ConfigError("the demo cannot have that many users", value=self.num_users, allowed="1 to 1,000,000")
        if self.seed < 0:
            raise ConfigError("the seed must not be negative", value=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Movies:
    """The pool in numbers; `genres_IG` and `moods_IM` are 0 or 1, `popularity_I` has mean 0."""

    genres_IG: np.ndarray
    moods_IM: np.ndarray
    years_I: np.ndarray
    popularity_I: np.ndarray
    successors_IS: np.ndarray


def read_demo(config: DemoConfig) -> RawData:
    """Makes the demo; the same configuration gives the same data."""
    pool_seed, taste_seed, choice_seed = np.random.SeedSequence(config.seed).spawn(3)
    rng = np.random.default_rng(pool_seed)
    movies = _movies(config.num_items, rng)
    titles = _titles(movies.years_I, rng)
    taste_UI = _tastes(config.num_users, movies, np.random.default_rng(taste_seed))
    interactions = _watch(taste_UI, movies, np.random.default_rng(choice_seed))
    return RawData(
        name="demo",
        layout="demo",
        interactions=interactions,
        items=RawItems(
            item_ids=interactions.item_ids,
            titles=titles,
            attributes=[
                RawAttribute(
                    name="genre", kind="categories", values=_names(movies.genres_IG, GENRES), description="genres of the movie"
                ),
                RawAttribute(
                    name="release_year", kind="number", values=[float(y) for y in movies.years_I], description="year of release"
                ),
                RawAttribute(
                    name="mood",
                    kind="category",
                    values=[names[0] for names in _names(movies.moods_IM, MOODS)],
                    description="mood of the movie",
                ),
            ],
        ),
        domain=MOVIES,
        origin={"seed": config.seed, "num_users": config.num_users, "num_items": config.num_items},
        notes=["this data set is made up, and the tastes of its users are planted"],
    )


def _movies(num_items: int, rng: np.random.Generator) -> _Movies:
    genre_weights = rng.dirichlet(np.full(len(GENRES), 6.0))
    genres_IG = np.zeros((num_items, len(GENRES)))
    for row, num in enumerate(rng.choice([1, 2, 3], size=num_items, p=[0.45, 0.4, 0.15])):
        genres_IG[row, rng.choice(len(GENRES), size=num, replace=False, p=genre_weights)] = 1
    moods_IM = np.eye(len(MOODS))[rng.integers(len(MOODS), size=num_items)]
    # More movies of late years, as any pool has them.
    years_I = LAST_YEAR - np.floor((LAST_YEAR - FIRST_YEAR + 1) * rng.beta(1.1, 1.9, size=num_items)).astype(np.int64)
    popularity_I = rng.normal(size=num_items)
    successors_IS = np.stack([rng.choice(num_items, size=_NUM_SUCCESSORS, replace=False) for _ in range(num_items)])
    return _Movies(
        genres_IG=genres_IG, moods_IM=moods_IM, years_I=years_I, popularity_I=popularity_I, successors_IS=successors_IS
    )


def _titles(years_I: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Unique titles with the year at the end; no two share both words, so that near matches stay unambiguous."""
    pairs = rng.permutation(len(_ADJECTIVES) * len(_NOUNS))[: len(years_I)]
    titles = []
    for pair, form, place, year in zip(
        pairs, rng.integers(3, size=len(pairs)), rng.integers(len(_PLACES), size=len(pairs)), years_I, strict=True
    ):
        words = f"{_ADJECTIVES[pair // len(_NOUNS)]} {_NOUNS[pair % len(_NOUNS)]}"
        name = (words, f"The {words}", f"The {words} of {_PLACES[place]}")[form]
        titles.append(f"{name} ({year})")
    return titles


def _tastes(num_users: int, movies: _Movies, rng: np.random.Generator) -> np.ndarray:
    """taste_UI: what every user thinks of every movie, before sequence, popularity and noise."""
    genre_UG = rng.dirichlet(np.full(len(GENRES), 0.35), size=num_users)
    mood_UM = rng.dirichlet(np.full(len(MOODS), 0.4), size=num_users)
    era_U = rng.uniform(FIRST_YEAR + 10, LAST_YEAR, size=num_users)
    # How much a user cares for each aspect differs, so that different attributes are telling for different users.
    care_U3 = rng.dirichlet(np.full(3, 1.5), size=num_users) * 3
    genre_UI = (genre_UG @ movies.genres_IG.T) / genre_UG.max(axis=1, keepdims=True)
    mood_UI = (mood_UM @ movies.moods_IM.T) / mood_UM.max(axis=1, keepdims=True)
    era_UI = np.exp(-0.5 * ((movies.years_I[None, :] - era_U[:, None]) / _ERA_YEARS) ** 2)
    taste_UI: np.ndarray = (
        _TASTE_GENRE * care_U3[:, :1] * genre_UI + _TASTE_MOOD * care_U3[:, 1:2] * mood_UI + _TASTE_ERA * care_U3[:, 2:] * era_UI
    )
    return taste_UI


def _watch(taste_UI: np.ndarray, movies: _Movies, rng: np.random.Generator) -> RawInteractions:
    num_users, num_items = taste_UI.shape
    lengths_U = np.clip(rng.lognormal(np.log(24), 0.5, size=num_users), MIN_LENGTH, MAX_LENGTH).astype(np.int64)
    watched_UL = _choose(taste_UI, movies, rng)
    gaps_s_UL = rng.exponential(2.5 * 86_400, size=watched_UL.shape).astype(np.int64) + 5_400
    times_s_UL = _FIRST_DAY_S + rng.integers(900 * 86_400, size=(num_users, 1)) + np.cumsum(gaps_s_UL, axis=1)
    taste_UL = np.take_along_axis(taste_UI, watched_UL, axis=1)
    liked_UL = taste_UL + 0.8 * movies.popularity_I[watched_UL] + rng.normal(size=watched_UL.shape)
    stars_UL = 1 + np.searchsorted(np.quantile(liked_UL, _STAR_QUANTILES), liked_UL)
    users, places = np.nonzero(np.arange(MAX_LENGTH) < lengths_U[:, None])
    return RawInteractions(
        user_ids=[f"u{number:04d}" for number in range(1, num_users + 1)],
        item_ids=[f"m{number:03d}" for number in range(1, num_items + 1)],
        users=users.astype(np.int32),
        items=watched_UL[users, places].astype(np.int32),
        ratings=stars_UL[users, places].astype(np.float32),
        timestamps=times_s_UL[users, places].astype(np.float64),
    )


def _choose(taste_UI: np.ndarray, movies: _Movies, rng: np.random.Generator) -> np.ndarray:
    """watched_UL: the movies that every user chooses one after another, none twice."""
    num_users, num_items = taste_UI.shape
    rows = np.arange(num_users)
    base_UI = taste_UI + _POPULARITY * movies.popularity_I
    seen_UI = np.zeros((num_users, num_items), dtype=bool)
    phase_UG = np.zeros((num_users, len(GENRES)))
    follow_up_UI = np.zeros((num_users, num_items))
    watched_UL = np.zeros((num_users, MAX_LENGTH), dtype=np.int64)
    for place in range(MAX_LENGTH):
        phase_UI = _PHASE_PULL * (phase_UG @ movies.genres_IG.T)
        score_UI = base_UI + phase_UI + follow_up_UI + rng.gumbel(size=(num_users, num_items))
        score_UI[seen_UI] = -np.inf
        chosen_U = np.argmax(score_UI, axis=1)
        watched_UL[:, place] = chosen_U
        seen_UI[rows, chosen_U] = True
        ends_U1 = rng.random((num_users, 1)) < _PHASE_ENDS
        # A movie of several genres pulls towards one of them.
        genre_U = np.argmax(movies.genres_IG[chosen_U] + 0.5 * rng.random((num_users, len(GENRES))), axis=1)
        phase_UG = np.where(ends_U1, 0.0, np.eye(len(GENRES))[genre_U])
        follow_up_UI[:] = 0
        follow_up_UI[rows[:, None], movies.successors_IS[chosen_U]] = _SUCCESSOR_PULL
    return watched_UL


def _names(flags: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tuple(names[column] for column in np.nonzero(row)[0]) for row in flags]
