/* SPDX-License-Identifier: MIT */
/*
 * CHAP (RFC 7143 section 12.1.3, RFC 1994): the target sends a challenge, we answer with hash(identifier, secret,
 * challenge); with a second secret we then challenge the target the same way. Hashes are SHA-256 (algorithm 7) and, for
 * old targets, MD5 (5), offered in this order. Some targets (tgt 1.0.85) take 7 for SHA-1, and fail: after a refusal
 * with SHA-256 the session offers MD5 alone once. That weakens nothing: who could provoke it could as well have chosen
 * MD5.
 *
 * What an attacker who plays the target may try, and what stands against it:
 *   - returning our challenge or our answer: the challenges of both directions must differ, answers that are alike are
 *     refused, and one secret for both directions is refused before anything is sent (9.2.1);
 *   - leaving its own proof out, or choosing no authentication: with mutual CHAP the login fails then;
 *   - learning a secret from how long a comparison takes: comparisons take the same time wherever the bytes differ;
 *   - guessing: secrets below 96 bits are refused.
 *
 * Pure: random bytes are handed in. Secrets are never written to messages. Used by iscsi_login.c.
 */
#ifndef NET_ISCSI_ISCSI_CHAP_H
#define NET_ISCSI_ISCSI_CHAP_H

#include "kernel/status.h"
#include "kernel/types.h"
#include "net/iscsi/iscsi_text.h"

#define ISCSI_CHAP_SECRET_MIN 12u
#define ISCSI_CHAP_SECRET_MAX 255u
#define ISCSI_CHAP_CHALLENGE_MAX 1024u
#define ISCSI_CHAP_CHALLENGE_OURS 32u
#define ISCSI_CHAP_HASH_MAX 32u

enum iscsi_chap_algorithm { ISCSI_CHAP_MD5 = 5, ISCSI_CHAP_SHA256 = 7 };

struct iscsi_secret {
    uint8_t bytes[ISCSI_CHAP_SECRET_MAX];
    uint8_t count;
};

struct iscsi_chap_account {
    bool mutual;
    char name[256];          /* ours, for the target */
    struct iscsi_secret secret;
    char mutual_name[256];   /* the name that the target must give; "": any */
    struct iscsi_secret mutual_secret;
};

/* Whether an account is fit for use; else *why is a sentence for the admin. */
enum status iscsi_chap_check(const struct iscsi_chap_account *account, const char **why) MUST_CHECK;

struct iscsi_chap {
    const struct iscsi_chap_account *account;
    bool md5_only;           /* offers MD5 alone; set between start and the first step */
    enum { CHAP_IDLE, CHAP_ALGORITHM_SENT, CHAP_ANSWER_SENT, CHAP_DONE } state;
    unsigned algorithm;
    uint8_t answer[ISCSI_CHAP_HASH_MAX];
    uint8_t challenge[ISCSI_CHAP_CHALLENGE_OURS], identifier; /* ours */
    const char *pair[5]; /* values of the present response: A, I, C, N, R */
    const char *error;   /* why the last call failed */
};

/* Starts; `account` (checked) must outlive it. */
void iscsi_chap_start(struct iscsi_chap *chap, const struct iscsi_chap_account *account);
/* Notes a pair of the response being read, if the key is CHAP's (false: it is not). A key twice makes the step fail. */
bool iscsi_chap_take(struct iscsi_chap *chap, const char *key, size_t key_bytes, const char *value);
/*
 * Once all pairs of a response are noted (they must still be there): the next move, written to `writer`. `fresh` are 33
 * random bytes that were never used before. ERR_INVALID: authentication failed, chap->error says why.
 * chap->state: CHAP_ANSWER_SENT: our part is complete with what was written (T may be set); CHAP_DONE: so is the
 * target's.
 */
enum status iscsi_chap_step(struct iscsi_chap *chap, const uint8_t fresh[ISCSI_CHAP_CHALLENGE_OURS + 1],
                            struct iscsi_text_writer *writer) MUST_CHECK;

/* hash(identifier, secret, challenge). Returns its length, 16 or 32; 0: it could not be computed. */
size_t iscsi_chap_hash(enum iscsi_chap_algorithm algorithm, uint8_t identifier, const struct iscsi_secret *secret,
                       const uint8_t *challenge, size_t challenge_bytes, uint8_t hash[ISCSI_CHAP_HASH_MAX]);

#endif
