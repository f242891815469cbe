"""The words by which the key of a secret is told from any other."""

# ruff: noqa: SIM905 - a list of words is read, and compared, as text

from __future__ import annotations

WHOLE = frozenset(
    """pass passwd passw password passwords pwd passphrase passphrases passcode passcodes secret
    secrets token tokens auth authn authz authorization authentication oauth bearer jwt jws jwe saml
    sso credential credentials cred creds cookie cookies csrf xsrf otp totp hotp mfa 2fa pin pins
    cvv cvc cvv2 csc ssn iban pan dsn salt pepper nonce hmac sig signature sid sess session sessions
    sessionid jsessionid phpsessid apikey key keys cert certificate card cards passport entropy pem
    pfx p12 pkcs12 crypt crypto mnemonic seed whsec itin assertion authenticator aadhaar cav2
    certificates cvn cvv3 cpf curp cryptogram dpop fido hash2fa jks kdbx keyfile keypair keyring
    keystore keytab kubeconfig magstripe mpin netrc nino nric openssl passkey passkeys passwds
    passwort kennwort pkcs8 ppk preshared privkey privkeys psk pswd puk pw pwds pword sas sessid
    secretid signatures sin tfa tfn truststore u2f upin webauthn xprv aspxauth pkce cookiejar gpg
    pgp keyphrase pat contrasena contraseña senha motdepasse wachtwoord salasana hasło
    пароль""".split()
)
"""A key with one of these among its words is that of a secret."""

JOINED = frozenset(
    """apikey privatekey accesskey secretkey signingkey encryptionkey sharedkey masterkey authkey
    licensekey licencekey sessionkey connectionstring connectionuri connectionurl connstring connstr
    databaseurl databaseuri dburl dburi redisurl mongourl mongouri mongodburi postgresurl amqpurl
    brokerurl jdbcurl cardnumber creditcard debitcard ccnumber ccnum cardno securitycode
    recoverycode recoveryphrase backupcode onetimecode verificationcode accountnumber accountno
    bankaccount seedphrase taxid taxpayerid nationalid nationalinsurance socialsecurity
    socialsecuritynumber socialinsurance driverslicense driverlicense drivinglicence drivinglicense
    magiclink resetlink resetcode invitecode signedurl presignedurl devicecode authcode
    confirmationcode activationcode accesscode pairingcode unlockcode verifycode factorcode
    logincode pincode smscode entrycode doorcode codeverifier track1 track2 trackdata rememberme
    sharedaccess loginlink challengeresponse securityanswer securityquestion secretanswer
    walletphrase serviceaccountjson kerberosticket snmpcommunity""".split()
)
"""Neighbouring words mark a secret too if, joined, they make one of these."""

STEMS = tuple(
    """password passwords passwd passwort passphrase passcode secret secrets token tokens apikey
    apikeys credential credentials privatekey secretkey accesskey sessionid sessionkey signature
    cookie cookies pass""".split()
)
"""Endings of a word that is written without a separator (``dbpassword``)."""

PASSAGES = frozenset(("bypass", "compass", "encompass", "overpass", "surpass", "trespass"))
"""Words that end with a stem, as ``dbpass`` does, but name no secret."""

ALLOWED = frozenset(
    """organization_id actor_id idempotency_key primary_key foreign_key partition_key sort_key
    cache_key routing_key ordering_key group_key unique_key dedup_key locale_key prev_hash key_id
    kid public_key_id max_tokens""".split()
)
"""Whole keys, their words joined by ``_``, that have a word of a secret but hold none."""

MEASURED = frozenset(
    """token tokens session sessions key keys jwt cookie cookies csrf xsrf salt nonce certificate
    certificates credential credentials""".split()
)
"""No secret of these kinds is a number: beside a word of ``METRIC``, a number under the key is not
redacted (``session_count``)."""

METRIC = frozenset(
    """age attempts average avg budget cached completion count counts days depth duration elapsed
    expiration expire expires expiry hours index input interval latency length lifespan lifetime
    limit limits max maximum mean median min minimum minutes ms num number output per percent period
    prompt quota rate ratio reasoning remaining retention retries seconds size sum timeout total ttl
    usage used validity""".split()
)
"""Words of what is counted or measured."""

DESCRIBING = frozenset(
    """alg algorithm algorithms algs allowed arn arns at audience authenticated backend backends
    brand category consent date directory disabled domain domains enabled encryption endpoint
    enforced engine failed file fingerprint format hashers httponly issuer kind last4
    mechanism method methods mode modes name names origins path paths policies policy port
    preference prefix protocol provider providers ref reference required rules samesite scheme scope
    scopes secure serializer source spec status strategies strategy strength supported thumbprint
    type types user validators verified version""".split()
)
"""A key that ends with one of these describes a secret and does not hold it."""

FLAGS = frozenset(
    """allow allows can change disable disables enable enables enter exclude expire force has hide
    ignore include is manage must need needs no remember require requires reset revoke rotate should
    show skip store support supports update use uses using""".split()
)
"""If a key has one of these, True and False under it are not redacted (``has_password``)."""

BENIGN = frozenset(
    """alternate:key attribute:key bucket:key business:key cache:key candidate:key child:key
    column:key composite:key dedup:key deduplication:key dict:key feature:key field:key flag:key
    foreign:key group:key hash:key idempotency:key index:key issue:key join:key label:key locale:key
    lookup:key map:key message:key metric:key natural:key node:key object:key ordering:key
    parent:key partition:key primary:key property:key public:key public:keys range:key record:key
    registry:key routing:key row:key setting:key shard:key sort:key surrogate:key tag:key
    translation:key unique:key primary:keys foreign:keys tag:keys key:column key:id key:ids
    key:identifier key:event key:events key:figures key:metric key:metrics key:point key:points
    key:result key:results key:schema key:value cookie:banner boarding:pass first:pass second:pass
    pass:count pass:fail pass:mark pass:percentage pass:rate pass:through score:card report:card
    card:layout card:title business:card graphics:card map:pin certificate:id certificate:ids
    factor:auth factor:authentication secret:scanning random:seed session:notes session:title
    session:topic training:session training:sessions email:signature signature:count crypto:currency
    crypto:price key:people key:takeaways sticky:session sticky:sessions token:symbol auth:uri
    auth:url authorization:uri authorization:url token:uri token:url""".split()
)
"""Pairs of neighbouring words that together mean something else than a secret."""
