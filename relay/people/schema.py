"""The tables of people, in the Router's database and in the Bridge's alike."""

# Of what is secret there are SHA-256 digests: a stolen copy of the database signs nobody in. A
# password, which can be guessed, is hashed by argon2id; NULL until it is chosen.
PEOPLE = """
    CREATE TABLE person (
        name TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        password TEXT,
        created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE sign_in (
        digest BLOB PRIMARY KEY,
        person TEXT NOT NULL REFERENCES person,
        address TEXT NOT NULL,
        agent TEXT NOT NULL,
        created INTEGER NOT NULL,
        seen INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Links that let a person choose a password once.
    CREATE TABLE one_time_link (
        digest BLOB PRIMARY KEY,
        person TEXT NOT NULL UNIQUE REFERENCES person,
        expires INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE api_token (
        name TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        role TEXT NOT NULL,
        created INTEGER NOT NULL,
        used INTEGER
    ) STRICT, WITHOUT ROWID;
"""
