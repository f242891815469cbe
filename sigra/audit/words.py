"""The words by which the key of a secret is told from any other."""

# ruff: noqa: SIM905 - a list of words is read, and compared, as text

from __future__ import annotations

WHOLE = frozenset(
    """
    pass passwd passw password passwords pwd passphrase passphrases passcode passcodes secret
    secrets token tokens auth authn authz authorization authentication oauth bearer jwt jws jwe
    saml sso credential credentials cred creds cookie cookies csrf xsrf otp totp hotp mfa 2fa
    pin pins cvv cvc cvv2 csc ssn iban pan dsn salt pepper nonce hmac sig signature sid sess
    session sessions sessionid jsessionid phpsessid apikey key keys cert certificate card cards
    passport entropy pem pfx p12 pkcs12 crypt crypto mnemonic seed whsec dbpass dbpassword itin
    assertion authenticator aadhaar cav2 certificates cvn cvv3 cpf curp cryptogram dpop fido
    hash2fa htpasswd jks kdbx keyfile keypair keypass keyring keystore keytab kubeconfig
    magstripe mpin netrc nino nric openssl passkey passkeys passwds passwort kennwort pgpass
    pkcs8 ppk preshared privkey privkeys psk pswd puk pw pwds pword sas sessid secretid
    signatures sin tfa tfn truststore u2f upin userpass webauthn xprv aspxauth pkce cookiejar
    gpg pgp keyphrase contrasena contraseña senha motdepasse wachtwoord salasana hasło пароль
    """.split()
)
"""A key with one of these among its words is that of a secret."""

JOINED = frozenset(
    """
    apikey apikeys privatekey accesskey secretkey signingkey encryptionkey sharedkey masterkey
    authkey licensekey licencekey clientsecret accesstoken refreshtoken idtoken authtoken
    apitoken bearertoken sessiontoken sessionkey sessioncookie connectionstring connectionuri
    connectionurl connstring connstr databaseurl databaseuri dburl dburi redisurl mongourl
    mongouri mongodburi postgresurl amqpurl brokerurl jdbcurl cardnumber creditcard debitcard
    ccnumber ccnum cardno securitycode recoverycode recoverycodes recoveryphrase backupcode
    backupcodes onetimecode onetimepassword onetimepasscode verificationcode accountnumber
    accountno bankaccount seedphrase taxid taxpayerid nationalid nationalinsurance
    socialsecurity socialsecuritynumber socialinsurance driverslicense driverlicense
    drivinglicence drivinglicense magiclink magiclinks resetlink resetcode invitecode signedurl
    presignedurl devicecode authcode confirmationcode activationcode accesscode pairingcode
    unlockcode pincode smscode entrycode doorcode codeverifier track1 track2 trackdata
    rememberme sharedaccess loginlink challengeresponse securityanswer securityquestion
    secretanswer walletphrase serviceaccountjson kerberosticket snmpcommunity
    """.split()
)
"""Neighbouring words that run together to one of these mark a secret too."""

STEMS = tuple(
    """
    password passwords passwd passwort passphrase passcode secret secrets token tokens apikey
    apikeys credential credentials privatekey secretkey accesskey sessionid sessionkey signature
    cookie cookies
    """.split()
)
"""Endings of a word that is written without a separator (``dbpassword``)."""

ALLOWED = frozenset(
    """
    organization_id actor_id idempotency_key primary_key foreign_key partition_key sort_key
    cache_key routing_key ordering_key group_key unique_key dedup_key locale_key prev_hash
    key_id kid public_key_id max_tokens
    """.split()
)
"""Keys that hold such a word and no secret, by their words joined with ``_``."""

MEASURED = frozenset(("token", "tokens", "session", "sessions", "key", "keys"))
"""Words that beside a metric word and a number are no secret (``session_count``)."""

METRIC = frozenset(
    """
    age attempts average avg budget cached completion count counts depth duration elapsed
    expires expiry hours index input latency length lifetime limit limits max maximum mean
    median min minimum minutes ms num number output per percent prompt quota rate ratio
    reasoning remaining retries seconds size sum timeout total ttl usage used
    """.split()
)

DESCRIBING = frozenset(
    """
    alg algorithm allowed at category consent date disabled enabled enforced failed format kind
    method mode policy preference provider required scheme status strength supported type types
    verified version
    """.split()
)
"""As a key's last word, these say that it tells of a secret and does not hold it."""

BENIGN = frozenset(
    """
    alternate:key attribute:key bucket:key business:key cache:key candidate:key child:key
    column:key composite:key dedup:key deduplication:key dict:key event:key feature:key
    field:key flag:key foreign:key group:key hash:key idempotency:key index:key issue:key
    join:key label:key locale:key lookup:key map:key message:key metric:key natural:key node:key
    object:key ordering:key parent:key partition:key primary:key property:key public:key
    public:keys range:key record:key registry:key routing:key row:key setting:key shard:key
    sort:key surrogate:key tag:key translation:key unique:key primary:keys foreign:keys tag:keys
    key:column key:event key:events key:figures key:name key:metric key:metrics key:path
    key:point key:points key:prefix key:result key:results key:schema key:value cookie:banner
    cookie:name secret:name token:name boarding:pass first:pass second:pass pass:count pass:fail
    pass:mark pass:percentage pass:rate pass:through score:card report:card card:layout
    card:title business:card graphics:card map:pin random:seed session:notes session:title
    session:topic training:session training:sessions email:signature signature:count
    signature:required crypto:currency crypto:price key:people key:takeaways sticky:session
    sticky:sessions token:symbol
    """.split()
)
"""Neighbouring words, one of them on the list above, that together mean something else."""
