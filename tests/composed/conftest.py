"""The steps of a life show what differs, as tests do."""

import pytest

pytest.register_assert_rewrite("tests.composed.lives", "tests.composed.oracle")
