#pragma once
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdint.h>

// The control codes are imported, but their calls are easier to get right with types.
static inline int copenssl_get_tag(EVP_CIPHER_CTX *context, void *tag, int size) {
    return EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, size, tag);
}
static inline int copenssl_set_tag(EVP_CIPHER_CTX *context, const void *tag, int size) {
    return EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, size, (void *)tag);
}

// OSSL_PARAM keeps pointers to its names: in C a literal lives for ever, in Swift a String's bytes do not.
static inline int copenssl_hkdf_sha256(
    EVP_KDF_CTX *context, const void *key, size_t key_size, const void *salt, size_t salt_size, const void *info,
    size_t info_size, uint8_t *out, size_t out_size) {
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key, key_size),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_size),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_size),
        OSSL_PARAM_construct_end(),
    };
    return EVP_KDF_derive(context, out, out_size, parameters);
}
