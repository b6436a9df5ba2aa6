/* SPDX-License-Identifier: MIT */
/* CHAP, the initiator's side. See iscsi_chap.h. Pure; the hashes are mbedTLS's. */
#include "net/iscsi/iscsi_chap.h"

#include <string.h>

#include "kernel/text.h"

#include <mbedtls/md5.h>
#include <mbedtls/sha256.h>

enum { PAIR_A, PAIR_I, PAIR_C, PAIR_N, PAIR_R, PAIR_COUNT };
static const char twice[] = ""; /* stands for a key that came twice; no value is at this address */

/* Equal or not, in a time that depends on the count alone. */
static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t count)
{
    volatile uint8_t difference = 0;
    for (size_t i = 0; i < count; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

enum status iscsi_chap_check(const struct iscsi_chap_account *account, const char **why)
{
    *why = NULL;
    if (!account->name[0])
        *why = "CHAP needs a user name";
    else if (account->secret.count < ISCSI_CHAP_SECRET_MIN)
        *why = "the CHAP secret is shorter than 12 bytes: choose a longer one here and on the target";
    else if (account->mutual && account->mutual_secret.count < ISCSI_CHAP_SECRET_MIN)
        *why = "the secret of mutual CHAP is shorter than 12 bytes: choose a longer one here and on the target";
    else if (account->mutual && account->secret.count == account->mutual_secret.count &&
             same_bytes(account->secret.bytes, account->mutual_secret.bytes, account->secret.count))
        *why = "both directions of CHAP have the same secret: choose two";
    return *why ? ERR_INVALID : OK;
}

size_t iscsi_chap_hash(enum iscsi_chap_algorithm algorithm, uint8_t identifier, const struct iscsi_secret *secret,
                       const uint8_t *challenge, size_t challenge_bytes, uint8_t hash[ISCSI_CHAP_HASH_MAX])
{
    size_t bytes = algorithm == ISCSI_CHAP_MD5 ? 16 : 32;
    if (algorithm == ISCSI_CHAP_MD5) {
        mbedtls_md5_context md5;
        mbedtls_md5_init(&md5);
        if (mbedtls_md5_starts_ret(&md5) || mbedtls_md5_update_ret(&md5, &identifier, 1) ||
            mbedtls_md5_update_ret(&md5, secret->bytes, secret->count) ||
            mbedtls_md5_update_ret(&md5, challenge, challenge_bytes) || mbedtls_md5_finish_ret(&md5, hash))
            bytes = 0;
        mbedtls_md5_free(&md5);
        return bytes;
    }
    mbedtls_sha256_context sha;
    mbedtls_sha256_init(&sha);
    if (mbedtls_sha256_starts_ret(&sha, 0) || mbedtls_sha256_update_ret(&sha, &identifier, 1) ||
        mbedtls_sha256_update_ret(&sha, secret->bytes, secret->count) ||
        mbedtls_sha256_update_ret(&sha, challenge, challenge_bytes) || mbedtls_sha256_finish_ret(&sha, hash))
        bytes = 0;
    mbedtls_sha256_free(&sha);
    return bytes;
}

void iscsi_chap_start(struct iscsi_chap *chap, const struct iscsi_chap_account *account)
{
    memset(chap, 0, sizeof(*chap));
    chap->account = account;
}

bool iscsi_chap_take(struct iscsi_chap *chap, const char *key, size_t key_bytes, const char *value)
{
    static const char *const names[PAIR_COUNT] = { "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R" };
    for (int i = 0; i < PAIR_COUNT; i++)
        if (iscsi_key_is(key, key_bytes, names[i])) {
            chap->pair[i] = chap->pair[i] ? twice : value;
            return true;
        }
    return false;
}

static enum status refuse(struct iscsi_chap *chap, const char *why)
{
    chap->error = why;
    return ERR_INVALID;
}

/* Answers the target's challenge; with mutual CHAP, challenges it. */
static enum status answer(struct iscsi_chap *chap, const uint8_t *fresh, struct iscsi_text_writer *writer)
{
    uint64_t algorithm, identifier;
    uint8_t theirs[ISCSI_CHAP_CHALLENGE_MAX];
    size_t theirs_bytes;
    if (!chap->pair[PAIR_A] || !chap->pair[PAIR_I] || !chap->pair[PAIR_C])
        return refuse(chap, "the target sent no complete CHAP challenge");
    if (iscsi_text_number(chap->pair[PAIR_A], &algorithm) != OK ||
        (algorithm != ISCSI_CHAP_MD5 && (algorithm != ISCSI_CHAP_SHA256 || chap->md5_only)))
        return refuse(chap, "the target chose a CHAP algorithm that was not offered");
    if (iscsi_text_number(chap->pair[PAIR_I], &identifier) != OK || identifier > 255)
        return refuse(chap, "the target's CHAP identifier is not a byte");
    if (iscsi_text_binary(chap->pair[PAIR_C], theirs, sizeof(theirs), &theirs_bytes) != OK)
        return refuse(chap, "the target's CHAP challenge is not a binary value of at most 1024 bytes");
    chap->algorithm = (unsigned)algorithm;
    size_t bytes = iscsi_chap_hash((enum iscsi_chap_algorithm)algorithm, (uint8_t)identifier, &chap->account->secret,
                                   theirs, theirs_bytes, chap->answer);
    if (!bytes)
        return refuse(chap, "the CHAP answer cannot be computed");
    iscsi_text_put(writer, "CHAP_N", chap->account->name);
    iscsi_text_put_binary(writer, "CHAP_R", chap->answer, bytes);
    if (chap->account->mutual) {
        memcpy(chap->challenge, fresh, sizeof(chap->challenge));
        chap->identifier = fresh[ISCSI_CHAP_CHALLENGE_OURS];
        if (theirs_bytes == sizeof(chap->challenge) && !memcmp(theirs, chap->challenge, theirs_bytes))
            return refuse(chap, "the target's CHAP challenge is the one that was made for it");
        iscsi_text_put_number(writer, "CHAP_I", chap->identifier);
        iscsi_text_put_binary(writer, "CHAP_C", chap->challenge, sizeof(chap->challenge));
    }
    chap->state = CHAP_ANSWER_SENT;
    return OK;
}

/* Checks the target's own proof. */
static enum status prove(struct iscsi_chap *chap)
{
    uint8_t theirs[ISCSI_CHAP_HASH_MAX], expected[ISCSI_CHAP_HASH_MAX];
    size_t bytes;
    if (!chap->account->mutual) {
        chap->state = CHAP_DONE;
        return OK;
    }
    if (!chap->pair[PAIR_N] || !chap->pair[PAIR_R])
        return refuse(chap, "the target did not prove who it is, and mutual CHAP is asked for: give it an outgoing account, or "
                            "leave chap-mutual out");
    if (chap->account->mutual_name[0] && !str_equal(chap->pair[PAIR_N], chap->account->mutual_name))
        return refuse(chap, "the target gave another CHAP name than the configuration has for it: compare chap-mutual with its "
                            "outgoing account");
    size_t expected_bytes = iscsi_chap_hash((enum iscsi_chap_algorithm)chap->algorithm, chap->identifier,
                                            &chap->account->mutual_secret, chap->challenge, sizeof(chap->challenge),
                                            expected);
    if (!expected_bytes || iscsi_text_binary(chap->pair[PAIR_R], theirs, sizeof(theirs), &bytes) != OK ||
        bytes != expected_bytes)
        return refuse(chap, "the target's CHAP answer has the wrong length");
    if (same_bytes(theirs, chap->answer, bytes))
        return refuse(chap, "the target sent our own CHAP answer back");
    if (!same_bytes(theirs, expected, bytes))
        return refuse(chap, "the target's CHAP answer is wrong, for it does not know the secret of mutual CHAP: compare chap-mutual "
                            "with its outgoing account");
    chap->state = CHAP_DONE;
    return OK;
}

enum status iscsi_chap_step(struct iscsi_chap *chap, const uint8_t fresh[ISCSI_CHAP_CHALLENGE_OURS + 1],
                            struct iscsi_text_writer *writer)
{
    enum status status = OK;
    for (int i = 0; i < PAIR_COUNT; i++)
        if (chap->pair[i] == twice)
            status = refuse(chap, "the target sent a CHAP key twice");
    if (status == OK)
        switch (chap->state) {
        case CHAP_IDLE:
            iscsi_text_put(writer, "CHAP_A", chap->md5_only ? "5" : "7,5");
            chap->state = CHAP_ALGORITHM_SENT;
            break;
        case CHAP_ALGORITHM_SENT:
            status = answer(chap, fresh, writer);
            break;
        case CHAP_ANSWER_SENT:
            status = prove(chap);
            break;
        case CHAP_DONE:
            break;
        }
    memset(chap->pair, 0, sizeof(chap->pair));
    return status;
}
