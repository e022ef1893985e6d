"""The best triggers one would write by hand for the two lenses, a text for each kind of server.

They follow the same rule as the library's (the sync rule, with its marker), but know what only a person knows about
these very columns: that their character set is utf8mb4, that their collation is deterministic, that a rename's settled
row holds one value twice. :mod:`bench.sync_cost` proves before it measures that both do the same.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["statements"]


def statements(product: str, scene: str, table: str) -> Sequence[str]:
    """Add the new columns and the marker to the (empty) ``table``, and the triggers.

    ``product`` is ``sqlite``, ``postgresql``, ``mariadb`` or ``mysql``.
    """
    text = _TEXTS[product, scene].replace("{t}", table).replace("{bin}", _BYTEWISE.get(product, ""))
    return [part.strip() for part in text.split("\n--\n")]


_BYTEWISE = {"mysql": "COLLATE utf8mb4_0900_bin", "mariadb": "COLLATE utf8mb4_nopad_bin"}

_POSTGRESQL_RENAME = """
ALTER TABLE {t} ADD COLUMN display_name varchar(120), ADD COLUMN cf_marker smallint
--
CREATE FUNCTION {t}_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.display_name IS NULL THEN
    NEW.display_name := NEW.full_name;
  ELSE
    NEW.full_name := NEW.display_name;
  END IF;
  NEW.cf_marker := 1;
  RETURN NEW;
END $$
--
CREATE FUNCTION {t}_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.display_name IS DISTINCT FROM OLD.display_name THEN
    NEW.full_name := NEW.display_name;
  ELSIF NEW.full_name IS DISTINCT FROM OLD.full_name OR NEW.display_name IS NULL THEN
    NEW.display_name := NEW.full_name;
  ELSE
    NEW.full_name := NEW.display_name;
  END IF;
  NEW.cf_marker := 1;
  RETURN NEW;
END $$
--
CREATE TRIGGER {t}_update BEFORE UPDATE ON {t} FOR EACH ROW
WHEN (NEW.cf_marker IS NOT DISTINCT FROM OLD.cf_marker AND (NEW.full_name IS DISTINCT FROM OLD.full_name
  OR NEW.display_name IS DISTINCT FROM OLD.display_name OR OLD.cf_marker IS NULL))
EXECUTE FUNCTION {t}_update()
--
CREATE TRIGGER {t}_insert BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_insert()
"""

_POSTGRESQL_SPLIT = """
ALTER TABLE {t} ADD COLUMN first_name varchar(120), ADD COLUMN last_name varchar(120), ADD COLUMN cf_marker smallint
--
CREATE FUNCTION {t}_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.first_name IS NULL AND NEW.last_name IS NULL THEN
    NEW.first_name := split_part(NEW.full_name, ' ', 1);
    NEW.last_name := substr(NEW.full_name, strpos(NEW.full_name || ' ', ' ') + 1);
  ELSIF NEW.first_name IS DISTINCT FROM split_part(NEW.full_name, ' ', 1)
    OR NEW.last_name IS DISTINCT FROM substr(NEW.full_name, strpos(NEW.full_name || ' ', ' ') + 1) THEN
    NEW.full_name := substr(btrim(NEW.first_name || ' ' || NEW.last_name), 1, 120);
  END IF;
  NEW.cf_marker := 1;
  RETURN NEW;
END $$
--
CREATE FUNCTION {t}_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.first_name IS DISTINCT FROM OLD.first_name OR NEW.last_name IS DISTINCT FROM OLD.last_name THEN
    IF NEW.full_name IS NOT DISTINCT FROM OLD.full_name
      OR NEW.first_name IS DISTINCT FROM split_part(NEW.full_name, ' ', 1)
      OR NEW.last_name IS DISTINCT FROM substr(NEW.full_name, strpos(NEW.full_name || ' ', ' ') + 1) THEN
      NEW.full_name := substr(btrim(NEW.first_name || ' ' || NEW.last_name), 1, 120);
    END IF;
  ELSIF NEW.full_name IS DISTINCT FROM OLD.full_name OR (NEW.first_name IS NULL AND NEW.last_name IS NULL) THEN
    NEW.first_name := split_part(NEW.full_name, ' ', 1);
    NEW.last_name := substr(NEW.full_name, strpos(NEW.full_name || ' ', ' ') + 1);
  ELSIF NEW.first_name IS DISTINCT FROM split_part(NEW.full_name, ' ', 1)
    OR NEW.last_name IS DISTINCT FROM substr(NEW.full_name, strpos(NEW.full_name || ' ', ' ') + 1) THEN
    NEW.full_name := substr(btrim(NEW.first_name || ' ' || NEW.last_name), 1, 120);
  END IF;
  NEW.cf_marker := 1;
  RETURN NEW;
END $$
--
CREATE TRIGGER {t}_update BEFORE UPDATE ON {t} FOR EACH ROW
WHEN (NEW.cf_marker IS NOT DISTINCT FROM OLD.cf_marker AND (NEW.full_name IS DISTINCT FROM OLD.full_name
  OR NEW.first_name IS DISTINCT FROM OLD.first_name OR NEW.last_name IS DISTINCT FROM OLD.last_name
  OR OLD.cf_marker IS NULL))
EXECUTE FUNCTION {t}_update()
--
CREATE TRIGGER {t}_insert BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_insert()
"""

# MySQL and MariaDB. One explicit collation decides a comparison.
_MYSQL_RENAME = """
ALTER TABLE {t} ADD COLUMN display_name VARCHAR(120) NULL INVISIBLE, ADD COLUMN cf_marker SMALLINT NULL INVISIBLE,
  ALGORITHM=INSTANT
--
CREATE TRIGGER {t}_update BEFORE UPDATE ON {t} FOR EACH ROW
BEGIN
  IF NEW.cf_marker <=> OLD.cf_marker THEN
    IF NOT (NEW.display_name {bin} <=> OLD.display_name) THEN
      SET NEW.full_name = NEW.display_name, NEW.cf_marker = 1;
    ELSEIF NOT (NEW.full_name {bin} <=> OLD.full_name) THEN
      SET NEW.display_name = NEW.full_name, NEW.cf_marker = 1;
    ELSEIF OLD.cf_marker IS NULL THEN
      IF NEW.display_name IS NULL THEN
        SET NEW.display_name = NEW.full_name, NEW.cf_marker = 1;
      ELSE
        SET NEW.full_name = NEW.display_name, NEW.cf_marker = 1;
      END IF;
    END IF;
  END IF;
END
--
CREATE TRIGGER {t}_insert BEFORE INSERT ON {t} FOR EACH ROW
BEGIN
  IF NEW.display_name IS NULL THEN
    SET NEW.display_name = NEW.full_name, NEW.cf_marker = 1;
  ELSE
    SET NEW.full_name = NEW.display_name, NEW.cf_marker = 1;
  END IF;
END
"""

_MYSQL_SPLIT = """
ALTER TABLE {t} ADD COLUMN first_name VARCHAR(120) NULL INVISIBLE, ADD COLUMN last_name VARCHAR(120) NULL INVISIBLE,
  ADD COLUMN cf_marker SMALLINT NULL INVISIBLE, ALGORITHM=INSTANT
--
CREATE TRIGGER {t}_update BEFORE UPDATE ON {t} FOR EACH ROW
BEGIN
  IF NEW.cf_marker <=> OLD.cf_marker THEN
    IF NOT (NEW.first_name {bin} <=> OLD.first_name AND NEW.last_name {bin} <=> OLD.last_name) THEN
      IF NEW.full_name {bin} <=> OLD.full_name
        OR NOT (NEW.first_name {bin} <=> SUBSTRING_INDEX(NEW.full_name, ' ', 1)
          AND NEW.last_name {bin} <=> SUBSTRING(NEW.full_name, CHAR_LENGTH(NEW.first_name) + 2)) THEN
        SET NEW.full_name = LEFT(TRIM(CONCAT(NEW.first_name, ' ', NEW.last_name)), 120);
      END IF;
      SET NEW.cf_marker = 1;
    ELSEIF NOT (NEW.full_name {bin} <=> OLD.full_name) THEN
      SET NEW.first_name = SUBSTRING_INDEX(NEW.full_name, ' ', 1),
        NEW.last_name = SUBSTRING(NEW.full_name, CHAR_LENGTH(NEW.first_name) + 2), NEW.cf_marker = 1;
    ELSEIF OLD.cf_marker IS NULL THEN
      IF NEW.first_name IS NULL AND NEW.last_name IS NULL THEN
        SET NEW.first_name = SUBSTRING_INDEX(NEW.full_name, ' ', 1),
          NEW.last_name = SUBSTRING(NEW.full_name, CHAR_LENGTH(NEW.first_name) + 2);
      ELSEIF NOT (NEW.first_name {bin} <=> SUBSTRING_INDEX(NEW.full_name, ' ', 1)
        AND NEW.last_name {bin} <=> SUBSTRING(NEW.full_name, CHAR_LENGTH(NEW.first_name) + 2)) THEN
        SET NEW.full_name = LEFT(TRIM(CONCAT(NEW.first_name, ' ', NEW.last_name)), 120);
      END IF;
      SET NEW.cf_marker = 1;
    END IF;
  END IF;
END
--
CREATE TRIGGER {t}_insert BEFORE INSERT ON {t} FOR EACH ROW
BEGIN
  IF NEW.first_name IS NULL AND NEW.last_name IS NULL THEN
    SET NEW.first_name = SUBSTRING_INDEX(NEW.full_name, ' ', 1),
      NEW.last_name = SUBSTRING(NEW.full_name, CHAR_LENGTH(NEW.first_name) + 2), NEW.cf_marker = 1;
  ELSEIF NEW.first_name {bin} <=> SUBSTRING_INDEX(NEW.full_name, ' ', 1)
    AND NEW.last_name {bin} <=> SUBSTRING(NEW.full_name, CHAR_LENGTH(NEW.first_name) + 2) THEN
    SET NEW.cf_marker = 1;
  ELSE
    SET NEW.full_name = LEFT(TRIM(CONCAT(NEW.first_name, ' ', NEW.last_name)), 120), NEW.cf_marker = 1;
  END IF;
END
"""

# SQLite cannot assign NEW, so the old column's NOT NULL is relaxed and enforced by the trigger: the table is made anew.
_SQLITE_TABLE = """
DROP TABLE {t}
--
CREATE TABLE {t} (id INTEGER NOT NULL PRIMARY KEY, full_name VARCHAR(120), email VARCHAR(120) NOT NULL,
  visits INTEGER NOT NULL)
--
"""

_SQLITE_RENAME = (
    _SQLITE_TABLE
    + """
ALTER TABLE {t} ADD COLUMN display_name VARCHAR(120)
--
ALTER TABLE {t} ADD COLUMN cf_marker SMALLINT
--
CREATE TRIGGER {t}_update AFTER UPDATE ON {t}
WHEN NEW.cf_marker IS OLD.cf_marker AND (NEW.full_name IS NOT OLD.full_name
  OR NEW.display_name IS NOT OLD.display_name OR OLD.cf_marker IS NULL)
BEGIN
  UPDATE {t} SET
    full_name = coalesce(CASE WHEN NEW.display_name IS NOT OLD.display_name THEN NEW.display_name
      WHEN NEW.full_name IS NOT OLD.full_name THEN NEW.full_name
      ELSE coalesce(NEW.display_name, NEW.full_name) END,
      RAISE(ABORT, 'NOT NULL constraint failed: {t}.full_name')),
    display_name = CASE WHEN NEW.display_name IS NOT OLD.display_name THEN NEW.display_name
      WHEN NEW.full_name IS NOT OLD.full_name THEN NEW.full_name
      ELSE coalesce(NEW.display_name, NEW.full_name) END,
    cf_marker = CASE NEW.cf_marker WHEN 1 THEN 2 ELSE 1 END
  WHERE id = NEW.id;
END
--
CREATE TRIGGER {t}_insert AFTER INSERT ON {t}
BEGIN
  UPDATE {t} SET full_name = coalesce(NEW.display_name, NEW.full_name,
      RAISE(ABORT, 'NOT NULL constraint failed: {t}.full_name')),
    display_name = coalesce(NEW.display_name, NEW.full_name),
    cf_marker = CASE NEW.cf_marker WHEN 1 THEN 2 ELSE 1 END
  WHERE id = NEW.id;
END
"""
)

_SQLITE_FIRST = "substr(NEW.full_name, 1, instr(NEW.full_name || ' ', ' ') - 1)"
_SQLITE_LAST = "substr(NEW.full_name, instr(NEW.full_name || ' ', ' ') + 1)"
_SQLITE_FULL = "substr(trim(NEW.first_name || ' ' || NEW.last_name), 1, 120)"
_SQLITE_AGREE = f"NEW.first_name IS {_SQLITE_FIRST} AND NEW.last_name IS {_SQLITE_LAST}"
_SQLITE_SPLIT = (
    _SQLITE_TABLE
    + f"""
ALTER TABLE {{t}} ADD COLUMN first_name VARCHAR(120)
--
ALTER TABLE {{t}} ADD COLUMN last_name VARCHAR(120)
--
ALTER TABLE {{t}} ADD COLUMN cf_marker SMALLINT
--
CREATE TRIGGER {{t}}_update AFTER UPDATE ON {{t}}
WHEN NEW.cf_marker IS OLD.cf_marker AND (NEW.full_name IS NOT OLD.full_name OR NEW.first_name IS NOT OLD.first_name
  OR NEW.last_name IS NOT OLD.last_name OR OLD.cf_marker IS NULL)
BEGIN
  UPDATE {{t}} SET
    full_name = coalesce(CASE
      WHEN NEW.first_name IS NOT OLD.first_name OR NEW.last_name IS NOT OLD.last_name
      THEN CASE WHEN NEW.full_name IS NOT OLD.full_name AND {_SQLITE_AGREE} THEN NEW.full_name ELSE {_SQLITE_FULL} END
      WHEN NEW.full_name IS NOT OLD.full_name OR (NEW.first_name IS NULL AND NEW.last_name IS NULL)
      THEN NEW.full_name
      WHEN {_SQLITE_AGREE} THEN NEW.full_name ELSE {_SQLITE_FULL} END,
      RAISE(ABORT, 'NOT NULL constraint failed: {{t}}.full_name')),
    first_name = CASE WHEN NEW.first_name IS OLD.first_name AND NEW.last_name IS OLD.last_name
      AND (NEW.full_name IS NOT OLD.full_name OR (NEW.first_name IS NULL AND NEW.last_name IS NULL))
      THEN {_SQLITE_FIRST} ELSE NEW.first_name END,
    last_name = CASE WHEN NEW.first_name IS OLD.first_name AND NEW.last_name IS OLD.last_name
      AND (NEW.full_name IS NOT OLD.full_name OR (NEW.first_name IS NULL AND NEW.last_name IS NULL))
      THEN {_SQLITE_LAST} ELSE NEW.last_name END,
    cf_marker = CASE NEW.cf_marker WHEN 1 THEN 2 ELSE 1 END
  WHERE id = NEW.id;
END
--
CREATE TRIGGER {{t}}_insert AFTER INSERT ON {{t}}
BEGIN
  UPDATE {{t}} SET
    full_name = coalesce(CASE WHEN (NEW.first_name IS NULL AND NEW.last_name IS NULL) OR ({_SQLITE_AGREE})
      THEN NEW.full_name ELSE {_SQLITE_FULL} END,
      RAISE(ABORT, 'NOT NULL constraint failed: {{t}}.full_name')),
    first_name = CASE WHEN NEW.first_name IS NULL AND NEW.last_name IS NULL
      THEN {_SQLITE_FIRST} ELSE NEW.first_name END,
    last_name = CASE WHEN NEW.first_name IS NULL AND NEW.last_name IS NULL
      THEN {_SQLITE_LAST} ELSE NEW.last_name END,
    cf_marker = CASE NEW.cf_marker WHEN 1 THEN 2 ELSE 1 END
  WHERE id = NEW.id;
END
"""
)

_TEXTS = {
    ("postgresql", "rename"): _POSTGRESQL_RENAME,
    ("postgresql", "split"): _POSTGRESQL_SPLIT,
    ("mysql", "rename"): _MYSQL_RENAME,
    ("mysql", "split"): _MYSQL_SPLIT,
    ("mariadb", "rename"): _MYSQL_RENAME,
    ("mariadb", "split"): _MYSQL_SPLIT,
    ("sqlite", "rename"): _SQLITE_RENAME,
    ("sqlite", "split"): _SQLITE_SPLIT,
}
