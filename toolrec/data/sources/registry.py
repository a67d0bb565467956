"""The published data sets that are known by name: where they come from, what they are called, how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from toolrec.data.pool import MOVIES, DomainWords
from toolrec.data.raw import RawData
from toolrec.data.reading.files import SourceFiles
from toolrec.data.sources.amazon import read_amazon
from toolrec.data.sources.download import GROUPLENS_URL, Download
from toolrec.data.sources.goodreads import read_goodreads
from toolrec.data.sources.lastfm import read_lastfm, read_lastfm_1k
from toolrec.data.sources.layout import LayoutConfig
from toolrec.data.sources.movielens import read_movielens
from toolrec.data.sources.sequences import read_kgat, read_s3rec
from toolrec.data.sources.steam import read_steam
from toolrec.data.sources.yelp import read_yelp

Reader = Callable[[SourceFiles, LayoutConfig], RawData]

ITEMS = DomainWords()
PRODUCTS = DomainWords(item="product", items="products", consumed="bought")
BUSINESSES = DomainWords(item="business", items="businesses", consumed="visited")
BOOKS = DomainWords(item="book", items="books", consumed="read")
ARTISTS = DomainWords(item="artist", items="artists", consumed="listened to")
GAMES = DomainWords(item="game", items="games", consumed="played")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """One published data set, or one layout.

    Attributes:
        name: what `toolrec data prepare NAME` takes.
        title: its full name.
        home_page: where it is published.
        licence: its terms, in short.
        files: what has to be in the folder, zip or tar.
        attributes: the attributes that it gives.
        citation: who to cite.
        read: reads its files.
        domain: how prompts speak of its items.
        download: what is downloaded without `--source`; None where the owner wants it got by hand.
        min_item_interactions: the usual item filter.
    """

    name: str
    title: str
    home_page: str
    licence: str
    files: str
    attributes: str
    citation: str
    read: Reader
    domain: DomainWords = ITEMS
    download: Download | None = None
    min_item_interactions: int = 1


_GROUPLENS_PAGE = "https://grouplens.org/datasets/movielens/"
_GROUPLENS_LICENCE = "research only, no redistribution without permission"
_MOVIELENS_PAPER = "Harper, Konstan: The MovieLens Datasets, TiiS 5(4), 2015"
_MCAULEY_LICENCE = "research; see the page"


def _movielens(name: str, title: str, files: str, *, md5: str | None = None, min_item_interactions: int = 1) -> SourceEntry:
    return SourceEntry(
        name=name,
        title=title,
        home_page=_GROUPLENS_PAGE,
        licence=_GROUPLENS_LICENCE,
        files=files,
        attributes="genre, release_year",
        citation=_MOVIELENS_PAPER,
        read=partial(read_movielens, name),
        domain=MOVIES,
        download=Download(file_name=f"{name}.zip", md5=md5, base_url=GROUPLENS_URL),
        min_item_interactions=min_item_interactions,
    )


def _amazon(name: str, title: str, page: str, files: str, citation: str) -> SourceEntry:
    return SourceEntry(
        name=name,
        title=title,
        home_page=page,
        licence=_MCAULEY_LICENCE,
        files=files,
        attributes="price, sales_rank, brand, categories",
        citation=citation,
        read=partial(read_amazon, name),
        domain=PRODUCTS,
    )


_CSV_FILES = "ratings.csv, movies.csv"
ENTRIES: tuple[SourceEntry, ...] = (
    _movielens("ml-100k", "MovieLens 100K", "u.data, u.item", md5="0e33842e24a9c977be4e0107933c0723"),
    _movielens(
        "ml-1m", "MovieLens 1M", "ratings.dat, movies.dat", md5="c4d9eecfca2ab87c1945afe126590906", min_item_interactions=5
    ),
    _movielens("ml-10m", "MovieLens 10M", "ratings.dat, movies.dat", md5="ce571fd55effeba0271552578f2648bd"),
    _movielens("ml-20m", "MovieLens 20M", _CSV_FILES, md5="cd245b17a1ae2cc31bb14903e1204af3"),
    _movielens("ml-25m", "MovieLens 25M", _CSV_FILES, md5="6b51fb2759a8657d3bfcbfc42b592ada"),
    _movielens("ml-32m", "MovieLens 32M", _CSV_FILES, md5="d472be332d4daa821edc399621853b57"),
    _movielens("ml-latest", "MovieLens latest (changes over time)", _CSV_FILES),
    _movielens("ml-latest-small", "MovieLens latest small (changes over time)", _CSV_FILES),
    _amazon(
        "amazon-2014",
        "Amazon reviews 2014",
        "https://jmcauley.ucsd.edu/data/amazon/",
        "reviews_X.json or ratings_X.csv, meta_X.json",
        "McAuley et al.: Image-Based Recommendations on Styles and Substitutes, SIGIR 2015",
    ),
    _amazon(
        "amazon-2018",
        "Amazon reviews 2018",
        "https://nijianmo.github.io/amazon/",
        "X.json or X.csv, meta_X.json",
        "Ni, Li, McAuley: Justifying Recommendations using Distantly-Labeled Reviews, EMNLP 2019",
    ),
    _amazon(
        "amazon-2023",
        "Amazon reviews 2023",
        "https://amazon-reviews-2023.github.io/",
        "X.jsonl or X.csv, meta_X.jsonl",
        "Hou et al.: Bridging Language and Items for Retrieval and Recommendation, 2024",
    ),
    SourceEntry(
        name="yelp",
        title="Yelp Open Dataset",
        home_page="https://www.yelp.com/dataset",
        licence="Yelp's dataset licence: academic use, no redistribution",
        files="yelp_academic_dataset_review.json, yelp_academic_dataset_business.json",
        attributes="city, state, stars, categories, postal_code, price_range",
        citation="Yelp Open Dataset",
        read=read_yelp,
        domain=BUSINESSES,
    ),
    SourceEntry(
        name="kgat",
        title="KGAT's amazon-book and yelp2018",
        home_page="https://github.com/xiangwang1223/knowledge_graph_attention_network",
        licence="see the repository and the owners of the data",
        files="train.txt, test.txt, item_list.txt, user_list.txt",
        attributes="none: join a table with --extra-items",
        citation="Wang et al.: KGAT, KDD 2019",
        read=read_kgat,
    ),
    SourceEntry(
        name="s3rec",
        title="S3-Rec's sequences",
        home_page="https://github.com/RUCAIBox/CIKM2020-S3Rec",
        licence="see the repository and the owners of the data",
        files="X.txt, X_item2attributes.json",
        attributes="attribute (numbers)",
        citation="Zhou et al.: S3-Rec, CIKM 2020",
        read=read_s3rec,
    ),
    SourceEntry(
        name="goodreads",
        title="Goodreads",
        home_page="https://mengtingwan.github.io/data/goodreads",
        licence=_MCAULEY_LICENCE,
        files="goodreads_interactions*.json or .csv, goodreads_books*.json",
        attributes="author, release_year, publisher, language, average_rating, ratings_count, num_pages, shelves",
        citation="Wan, McAuley: Item Recommendation on Monotonic Behavior Chains, RecSys 2018",
        read=read_goodreads,
        domain=BOOKS,
    ),
    SourceEntry(
        name="lastfm",
        title="Last.fm, HetRec 2011",
        home_page="https://grouplens.org/datasets/hetrec-2011/",
        licence="research only",
        files="user_artists.dat, artists.dat, tags.dat, user_taggedartists.dat",
        attributes="tags",
        citation="Cantador, Brusilovsky, Kuflik: HetRec 2011, RecSys 2011",
        read=read_lastfm,
        domain=ARTISTS,
    ),
    SourceEntry(
        name="lastfm-1k",
        title="Last.fm 1K",
        home_page="http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html",
        licence="non-commercial",
        files="userid-timestamp-artid-artname-traid-traname.tsv",
        attributes="none",
        citation="Celma: Music Recommendation and Discovery, Springer 2010",
        read=read_lastfm_1k,
        domain=ARTISTS,
    ),
    SourceEntry(
        name="steam",
        title="Steam",
        home_page="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        licence=_MCAULEY_LICENCE,
        files="steam_reviews.json, steam_games.json",
        attributes="genres, tags, price, developer, publisher, release_year",
        citation="Kang, McAuley: Self-Attentive Sequential Recommendation, ICDM 2018",
        read=read_steam,
        domain=GAMES,
    ),
)
REGISTRY: dict[str, SourceEntry] = {entry.name: entry for entry in ENTRIES}
