"""Which keys and values are secrets, on names that the rule was not written from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sigra.audit.redact import HARMLESS, MEASURE, REDACTED, SECRET, holds_secret, key_verdict
from sigra.audit.sanitize import _simple_keys, sanitize

# Names of settings, headers, columns and fields as frameworks, clouds and payment systems have
# them, gathered apart from the lists in words.py.
SECRETS = """
AWS_SECRET_ACCESS_KEY aws_session_token AZURE_CLIENT_SECRET AZURE_STORAGE_KEY GOOGLE_API_KEY
GITHUB_TOKEN GH_PAT_TOKEN NPM_TOKEN PYPI_API_TOKEN DOCKER_PASSWORD DOCKERHUB_TOKEN HEROKU_API_KEY
SLACK_BOT_TOKEN SLACK_SIGNING_SECRET STRIPE_SECRET_KEY STRIPE_WEBHOOK_SECRET TWILIO_AUTH_TOKEN
SENDGRID_API_KEY MAILGUN_API_KEY DATADOG_API_KEY DD_APP_KEY SENTRY_DSN ROLLBAR_ACCESS_TOKEN
CLOUDFLARE_API_TOKEN VAULT_TOKEN CONSUL_HTTP_TOKEN SECRET_KEY_BASE RAILS_MASTER_KEY
DJANGO_SECRET_KEY SQLALCHEMY_DATABASE_URL DATABASE_URL CELERY_BROKER_URL REDIS_PASSWORD
MYSQL_ROOT_PASSWORD POSTGRES_PASSWORD PGPASSWORD MONGO_INITDB_ROOT_PASSWORD JWT_SECRET
jwtSigningKey refreshToken accessToken idToken id_token bearerToken X-Auth-Token X-Api-Key
X-CSRF-Token X-XSRF-TOKEN Authorization Proxy-Authorization Set-Cookie Cookie csrfmiddlewaretoken
connect.sid PHPSESSID JSESSIONID ASP.NET_SessionId laravel_session sessionid session_key
remember_token resetPasswordToken confirmation_token email_verification_code otp_secret
otpSecretKey totp_seed mfaCode mfa_recovery_codes backup_codes recoveryCode two_factor_secret
pinCode card_pin cardNumber card_number cardCvv cvc cvv2 credit_card_number creditCard pan
iban account_number bankAccountNumber ssn socialSecurityNumber tax_id passportNumber
driver_license_number private_key privateKeyPem ssh_private_key sshKey rsa_private_key
client_secret clientSecret consumer_secret consumerKey app_secret appSecret webhook_secret
signing_key encryptionKey encryption_key master_key hmac_key aesKey kms_key_material
db_password dbPassword dbpass db_pwd ldap_bind_password smtp_pass smtpPassword ftpPassword
user_password userPassword old_password newPassword password_confirmation passwordHash
password_digest password2 passwd passphrase keystorePassword truststore_password
keystore_pass service_account_key credentials aws_credentials oauth_token oauthVerifier
oauth2_client_secret authorization_code auth_code code_verifier samlResponse SAMLAssertion
sso_token nonce salt pepper signature X-Hub-Signature-256 X-Amz-Signature
wallet_mnemonic seed_phrase recoveryPhrase licenseKey license_key activation_code
connection_string ConnectionString AzureWebJobsStorageConnectionString sas_token sharedAccessKey
PaSsWoRd sess-ion-token ｐａｓｓｗｏｒｄ api\u200bkey pass\u00adword APIKEY apikey myApiKey
""".split()

BENIGN = """
author authority author_id coauthors authored_at keyboard keyboard_layout keynote monkey turkey
hockey_team donkey whiskey keyword keywords keystroke_rate hotkeys passenger passenger_count
passengers compass passage passive bypass bypassed overpass compassion passion_project surpassed
trespass pinned spinner spinning opinion pineapple pinterest_url shipping shipping_address
discard discarded cardinality cardiology cardboard postcard_url wildcard scorecard dashboard
tokenize tokenizer tokenization tokenizer_name max_tokens maxTokens total_tokens prompt_tokens
secretary secretariat section sectional obsession possession session_count sessionCount
sessions_total session_length session_duration_ms crypt0n1te cryptic description encrypted
encrypted_at is_encrypted encryption_enabled decrypt_count certified certification_level
certainty concert saltwater basalt assault asphalt salty designation signal signals sign_up
signup_source signed_at signer_name resign design seedling seeded proceed exceeded succeeded
hashtag hash commit_hash content_hash file_hash checksum etag md5 sha256 digest
organization_id actor_id user_id tenant_id account_id account_name accounts customer_id order_id
invoice_id invoice_number line_items product_code country_code zip_code status_code error_code
exit_code currency_code language_code promo_code sku barcode postal_code qr_code http_code
idempotency_key primary_key foreign_key partition_key sort_key cache_key routing_key
idempotencyKey primaryKey sortKey cacheKey dedup_key shard_key object_key public_key_id key_id kid
url callback_url redirect_uri homepage webhook_id host hostname port path method user_agent
remote_addr ip_address request_id trace_id span_id correlation_id job_id attempt worker queue
created_at updated_at deleted_at expires_at timestamp duration_ms elapsed latency_ms retries
name first_name last_name full_name username display_name title subject body message comment
email phone address city state country region latitude longitude timezone locale birth_date
amount total subtotal tax tax_rate discount price quantity balance currency payment_method
payment_id refund_id shipping_method tracking_number carrier weight height width depth color size
type kind category status state_machine version revision branch tag release environment stage
file_name file_size mime_type content_type content_length encoding charset width_px format
enabled disabled active archived verified approved rejected reason note tags labels
password_policy password_changed_at passwordResetRequired mfa_enabled token_type auth_method
authProvider session_timeout key_count cookie_consent card_type oauth_provider pass_rate
boarding_pass_count first_pass training_session
""".split()

NUMERIC = {"sessions_total", "session_count", "sessionCount", "session_length", "key_count",
           "session_duration_ms", "total_tokens", "prompt_tokens", "session_timeout"}  # fmt: skip


def is_flagged(key: str, value: Any = "x") -> bool:
    return sanitize({key: value})[0][key] == REDACTED


def test_nearly_all_secret_names_are_caught() -> None:
    """At least 99 % of the names of secrets are redacted."""
    missed = [key for key in SECRETS if not is_flagged(key)]
    assert len(missed) <= len(SECRETS) * 0.01, missed


def test_few_harmless_names_are_taken_for_secrets() -> None:
    """At most 3 % of other names are redacted, numbers standing where numbers stand."""
    flagged = [key for key in BENIGN if is_flagged(key, 12 if key in NUMERIC else "x")]
    assert len(flagged) <= len(BENIGN) * 0.03, flagged


# Names as modules of automation, clouds, payments and identity have them: told apart by what
# their values are, before the rule had been tried on them.
FIELD: dict[str, list[str]] = {}
for word in Path(__file__).with_name("key_names.txt").read_text().split():
    if word.endswith(":"):
        names = FIELD.setdefault(word[:-1], [])
    else:
        names.append(word)


def test_names_of_the_field_are_told_apart() -> None:
    """Of 642 names of secrets at least 99 % are redacted, of 3,400 others at most 3 %."""
    missed = [key for key in FIELD["secret"] if not is_flagged(key)]
    values: dict[str, Any] = {"text": "x", "number": 12, "flag": True}
    others = [(key, value) for kind, value in values.items() for key in FIELD[kind]]
    flagged = [key for key, value in others if is_flagged(key, value)]
    assert len(missed) <= len(FIELD["secret"]) * 0.01, missed
    assert len(flagged) <= len(others) * 0.03, flagged


def test_the_corpus_is_large_enough_to_say_so() -> None:
    """One name more or less does not decide whether the two rates hold."""
    assert len(set(SECRETS)) > 150
    assert len(set(BENIGN)) > 250


@pytest.mark.parametrize(
    "key",
    ["session_token", "sessionToken", "session-token", "session token", "session.token",
     "SESSION_TOKEN", "SessionToken", "session/token", "session:token", "x[session][token]",
     "sess\u200bion_token", "ｓｅｓｓｉｏｎ_ｔｏｋｅｎ", "my_session_token_2"],
)  # fmt: skip
def test_the_style_of_a_key_does_not_matter(key: str) -> None:
    """A name is told by its words, in any case and with any separator, odd signs removed."""
    assert SECRET == key_verdict(key)


@pytest.mark.parametrize(
    "key",
    ["dbpassword", "myapikey", "authtoken", "accesstoken", "clientsecret", "uploadpass",
     "apikeyprod", "passwdfile", "privatekeyfile", "secretkeyprod"],
)  # fmt: skip
def test_words_run_together_are_found(key: str) -> None:
    """A name without any separator is caught by how it ends or begins, or as a whole."""
    assert SECRET == key_verdict(key)


@pytest.mark.parametrize(
    "key", ["user2FA", "user2fa", "user2Fa", "2Fa", "backup2FACode", "backup2faCode"]
)
def test_a_word_that_begins_with_a_digit_begins_a_word(key: str) -> None:
    """The digit of 2FA is no version of the word before it."""
    assert SECRET == key_verdict(key)


@pytest.mark.parametrize("key", ["apiV2Factory", "step2Fast", "sha2file", "is2FAEnabled"])
def test_not_every_2_begins_2fa(key: str) -> None:
    """Other words after a 2, and what only describes 2FA, are left alone."""
    assert HARMLESS == key_verdict(key)


@pytest.mark.parametrize("key", ["se_cret", "coo_kies", "pass_phrases", "con_nec_tion_string"])
def test_a_word_torn_apart_is_found(key: str) -> None:
    """Neighbours that run together to a word of six letters or more, up to four of them."""
    assert SECRET == key_verdict(key)


@pytest.mark.parametrize("key", ["to_ken", "to_tp_x", "con_nec_ti_on_string"])
def test_not_everything_that_can_be_joined_is(key: str) -> None:
    """A shorter word, or one of more parts, is met by chance."""
    assert HARMLESS == key_verdict(key)


@pytest.mark.parametrize("key", ["bypass", "compass", "encompass", "surpass2", "trespass"])
def test_a_word_that_ends_as_a_secret_s_name_does_may_be_none(key: str) -> None:
    """A passage is no password."""
    assert HARMLESS == key_verdict(key)


@pytest.mark.parametrize("key", ["sort_key", "user_sort_key", "my_user_sort_key"])
def test_a_harmless_pair_is_one_wherever_it_stands(key: str) -> None:
    """The word before it says what a key is, and no other does."""
    assert HARMLESS == key_verdict(key)


@pytest.mark.parametrize(
    "key",
    ["organization_id", "actor_id", "idempotency_key", "primary_key", "foreign_key",
     "partition_key", "sort_key", "cache_key", "routing_key", "ordering_key", "group_key",
     "unique_key", "dedup_key", "locale_key", "prev_hash", "key_id", "kid", "public_key_id",
     "max_tokens", "idempotencyKey", "Partition-Key"],
)  # fmt: skip
def test_allowed_names_pass(key: str) -> None:
    """The names of keys that hold no secret pass in every style."""
    assert HARMLESS == key_verdict(key)


@pytest.mark.parametrize(
    "key",
    ["token_count", "tokens_used", "max_session", "session_ttl", "key_count", "cookie_max_age",
     "jwt_expiry", "access_token_expire_minutes", "api_key_count", "api_key_id_count"],
)  # fmt: skip
def test_a_metric_passes_as_a_number_only(key: str) -> None:
    """What is never a number, beside a metric word, passes with a number and nothing else."""
    assert MEASURE == key_verdict(key)
    assert not is_flagged(key, 12)
    assert not is_flagged(key, 0.5)
    assert is_flagged(key, "12")
    assert is_flagged(key, [12])


def test_a_metric_word_frees_no_other_secret() -> None:
    """A number under a password's name is a secret, whatever stands beside it."""
    assert is_flagged("max_password", 12)
    assert is_flagged("pin_count", 1234)
    assert is_flagged("card_number_token_count", 1234)
    assert is_flagged("auth_code_number", 1234)
    assert is_flagged("tax_id_token_count", 1234)


@pytest.mark.parametrize(
    "key", ["has_password", "requireMfa", "password_reset", "ENABLE_SSO", "enable2FA"]
)
def test_an_answer_of_yes_or_no_is_no_secret(key: str) -> None:
    """True and False pass under a name with a verb, and nothing else does."""
    assert not is_flagged(key, True)
    assert not is_flagged(key, False)
    assert is_flagged(key, "x")
    assert is_flagged(key, 1)


@pytest.mark.parametrize(
    "key",
    ["session_cookie_name", "PasswordHashers", "secret_arn", "auth-backend", "card_last4",
     "user[card_type]"],
)  # fmt: skip
def test_what_describes_a_secret_is_none(key: str) -> None:
    """A last word for a property of a secret says that it is not here itself."""
    assert HARMLESS == key_verdict(key)


def test_a_key_too_long_to_be_a_name_is_redacted() -> None:
    """A key of more than 256 characters has its value redacted."""
    assert SECRET == key_verdict("a" * 257)
    assert HARMLESS == key_verdict("a" * 256)
    assert is_flagged("a" * 257)
    assert not is_flagged("a" * 256)


def test_a_key_that_stands_for_more_characters_is_judged_by_them() -> None:
    """A key whose characters stand for more than 256 is too long to be a name as well."""
    assert SECRET == key_verdict("\ufdfa" * 15)
    assert HARMLESS == key_verdict("\ufdfa" * 14)


def test_null_stays_null() -> None:
    """A secret that is not there is shown as not there."""
    assert ({"password": None}, []) == sanitize({"password": None})


@pytest.mark.parametrize(
    "value", ["", 0, False, [], {}, ["x"], {"a": {"b": 1}}, 1.5, b"x", object()]
)
def test_any_other_value_is_redacted_whole(value: Any) -> None:
    """Under a secret's name every value but null is replaced, containers as one."""
    assert ({"a": {"password": REDACTED}}, ["$.a.password"]) == sanitize(
        {"a": {"password": value}}
    )[:2]


def test_secrets_are_found_at_any_depth() -> None:
    """Keys in lists and dicts are looked at as deep as metadata goes, and their paths told."""
    found = sanitize({"cards": 1, "a": [{"b": ({"pwd": 1}, {"c": {"apiKey": 2}})}]})
    assert ["$.cards", "$.a[0].b[0].pwd", "$.a[0].b[1].c.apiKey"] == found[1]


@pytest.mark.parametrize("deep", [False, True])
def test_a_secret_in_a_key_is_redacted(deep: bool) -> None:
    """A key that holds a secret is replaced in metadata and in the paths; its value stays."""
    reached = {"postgres://u:hunter2@db/x": "ok", b"postgres://u:hunter3@db/x": 1}
    plain, paths = sanitize({"reached": reached} if deep else reached)
    assert {REDACTED: "ok", f"{REDACTED}#1": 1} == (plain["reached"] if deep else plain)
    assert [".[REDACTED]"] * 2 == [path[-11:] for path in paths]
    assert {REDACTED: 1} == sanitize({"postgres://u:hunter2@db/x": 1})[0]


def test_a_key_of_a_secret_that_holds_one_hides_its_value_too() -> None:
    """What a redacted key said of its value still counts."""
    assert {REDACTED: REDACTED} == sanitize({"password of redis://:hunter2@h": "hunter3"})[0]


def test_the_paths_of_what_is_redacted_are_bounded() -> None:
    """A result tells of 1,000 secrets at most, and a path that is long grows no further."""
    value: Any = [{"pin": "x"}] * 2_000
    for _ in range(60):
        value = {"\u202e" * 64: value}
    _, paths = sanitize({"x": value})
    assert 1_000 == len(paths)
    assert max(map(len, paths)) < 1_000


def test_a_path_cannot_be_broken_out_of() -> None:
    """A key with odd characters is quoted in the path, and a long one is cut."""
    _, paths = sanitize({"token\n2026 admin": 1, "password" + "x" * 200 + "_pin": 2})
    assert '$["token\\n2026 admin"]' == paths[0]
    assert len(paths[1]) < 80


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "token is eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA",
        "-----BEGIN CERTIFICATE-----",
        "postgresql://app:hunter2@db.internal:5432/app",
        "see redis://:hunter2@cache/0 for it",
        "smtp://ann@shop.example:hunter2@mail.example:587",
        "postgresql://app:" + "hunter2" * 100 + "@db.internal/app",
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "key ASIAIOSFODNN7EXAMPLE used",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "gho_16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_11ABCDEFG0_abcdefxyz",
        "xoxb-123456789012-abcdefghijkl",
        "xoxp-123456789012-abcdefghijkl",
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "rk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "Authorization: Bearer abc.def.ghi",
        "Bearer mF_9.B5f-4.1JqM",
        "bearer mF_9.B5f-4.1JqMabcdefgh",
        "bearer mF9.B5f-4.1JqMabcdef",
        "xoxb-abcdef",
        "a://b:c@d",
        "://:c@",
    ],
)
def test_a_secret_is_known_by_its_look(text: str) -> None:
    """A token, private key or URL with a password is redacted under any name."""
    assert holds_secret(text)
    assert ({"note": REDACTED}, ["$.note"]) == sanitize({"note": text})
    assert ({"note": [REDACTED]}, ["$.note[0]"]) == sanitize({"note": [text]})[:2]


@pytest.mark.parametrize(
    "text",
    [
        "", "paid in full", "https://example.com:8080/path?x=1@2", "https://user@example.com/x",
        "2026-11-25T10:00:00+00:00", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128",
        "the bearer of this note", "a@b.example", "ghost_writer", "AKIA", "MAKIAVELLIANS", "xoxo-love", "sk_living",
        "ws://a/b", "eyJoy", "-----", "BEGIN", "arn:aws:iam::123837392027:user/benjamin", "::1", "a:b@c",
        "0198f3a0-0000-7000-8000-000000000000", "invoice.close", "task_live_update",
    ],
)  # fmt: skip
def test_an_ordinary_text_is_left_alone(text: str) -> None:
    """Text that only resembles a secret is kept."""
    assert not holds_secret(text)


@pytest.mark.programs
def test_the_search_of_a_hostile_text_comes_to_an_end() -> None:
    """It is linear: a search of a megabyte that looked at each pair of places would take hours."""
    parts = ("://", "eyJ-", "eyJ.", "://a:", "-----BEGIN ", "Bearer  ", "gh_xox-", "AKIA")
    search = (
        "import sys; from sigra.audit.redact import holds_secret\n"
        "for part in sys.argv[1:]: holds_secret(part * (2**20 // len(part)))"
    )
    # In a process of its own, for nothing breaks off a search in this one.
    subprocess.run([sys.executable, "-c", search, *parts], check=True, timeout=240)


def test_metadata_of_up_to_the_limit_is_kept() -> None:
    """Metadata of exactly 8,192 bytes stays; one byte more makes a digest of it."""
    room = 8_192 - len('{"note":""}')
    assert {"note": "x" * room} == sanitize({"note": "x" * room})[0]
    assert {"truncated", "bytes", "sha256"} == set(sanitize({"note": "x" * (room + 1)})[0])


def test_metadata_in_any_script_is_kept() -> None:
    """Keys that are not ASCII cost no more than 8,192 bytes of them have room for."""
    metadata = {f"имя_{n}": n for n in range(100, 500)}
    assert metadata == sanitize(metadata)[0]


def test_the_length_of_what_is_redacted_hides_no_later_secret() -> None:
    """However long the texts were that are redacted, each that is kept was searched."""
    key = "-----BEGIN PRIVATE KEY-----" + "x" * 3_000
    assert {"files": [REDACTED] * 5} == sanitize({"files": [key] * 5})[0]


@pytest.mark.parametrize(
    "before", [{"note": "x" * 9_000}, {f"{n:02}" + "k" * 200: n for n in range(45)}]
)
def test_what_does_not_leave_the_process_is_not_searched(before: dict[str, Any]) -> None:
    """Behind so much text that a digest takes its place, a search would only cost time."""
    assert [] == sanitize({**before, "last": "Bearer abcdefgh"})[1]


def test_of_many_long_texts_the_first_ones_are_read() -> None:
    """The digest is of some 400,000 characters of them."""
    texts = ["x" * 50_000] * 200
    assert 400_000 < sanitize({"texts": texts})[0]["bytes"] < 500_000


@pytest.mark.parametrize(
    ("metadata", "read"),
    [
        ({"n": [1] * 6_000}, {"n": [1] * 4_999}),
        ({str(n): 1 for n in range(6_000)}, {str(n): 1 for n in range(5_000)}),
        ({"text": "x" * 500_000}, {"text": "x" * 400_000}),
    ],
)
def test_five_thousand_values_are_read(metadata: dict[str, Any], read: dict[str, Any]) -> None:
    """Or 400,000 characters: a list and what it holds each count as one, a text by its length."""
    assert len(json.dumps(read, separators=(",", ":"))) == sanitize(metadata)[0]["bytes"]


def test_the_names_of_tenants_fill_no_memory() -> None:
    """Of the harmless keys that were seen some 1,000 are remembered, not all."""
    for n in range(3_000):
        sanitize({f"tenants_{n}": n})
    assert 0 < len(_simple_keys) <= 1_024


def test_what_was_not_read_leaves_a_digest_of_what_was() -> None:
    """Keys that take long to judge end the reading before there are 8,192 bytes: it is told."""
    metadata = {"\ufdfa" * 200 + str(n): n for n in range(12)}
    assert sanitize(metadata)[0]["truncated"]


def test_a_number_that_is_tried_to_tell_keys_apart_counts_as_a_value() -> None:
    """Keys that are alike as text, and whose numbers are all taken, do not prolong the reading."""
    alike = type("T", (), {"__module__": None})
    taken = {f"<T>#{n}": 1 for n in range(1_000, 2_000)}
    told = sanitize({**taken, **{alike(): 1 for _ in range(1_000)}})[0]
    assert told["bytes"] < len(json.dumps(taken))


def test_a_digest_is_of_the_compact_json() -> None:
    """What is too large is told by its size and SHA-256 as compact UTF-8 JSON, redacted."""
    import hashlib

    plain = {"note": "é" * 5_000, "password": REDACTED}
    data = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    expected = {"truncated": True, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert (expected, ["$.password"]) == sanitize({**plain, "password": "hunter2"})
