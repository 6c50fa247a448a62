// How a store is asked to keep objects: storage class, encryption at rest, object lock. And whether it does: some
// stores answer 200 and ignore the headers, so what they keep is read back.

import Curl
package import KedgeCore
import Synchronization

/// What is asked of the store for each object.
package struct S3Keeping: Hashable, Sendable {
    /// Encryption at rest by the store, besides our own.
    package enum Encryption: Hashable, Sendable {
        /// With the store's own keys (SSE-S3).
        case storeKeys
        /// With a key of a key management service (SSE-KMS); nil: the bucket's.
        case managedKey(String?)
    }

    /// The time for which nobody can remove an object, or not without a right of its own.
    package struct Lock: Hashable, Sendable {
        package enum Mode: String, Hashable, Sendable, CaseIterable {
            case governance, compliance
        }

        package var mode: Mode
        package var days: Int

        package init(mode: Mode, days: Int) {
            self.mode = mode
            self.days = days
        }
    }

    package var storageClass: String?
    package var encryption: Encryption?
    package var lock: Lock?

    package init(storageClass: String? = nil, encryption: Encryption? = nil, lock: Lock? = nil) {
        self.storageClass = storageClass
        self.encryption = encryption
        self.lock = lock
    }

    /// Headers of a request that stores `name` at `now`, by the store's clock.
    package func headers(for name: ObjectName, at now: Timestamp) -> [(name: String, value: String)] {
        var headers: [(name: String, value: String)] = []
        if let storageClass { headers.append(("x-amz-storage-class", storageClass)) }
        switch encryption {
        case nil: break
        case .storeKeys: headers.append(("x-amz-server-side-encryption", "AES256"))
        case .managedKey(let key):
            headers.append(("x-amz-server-side-encryption", "aws:kms"))
            if let key { headers.append(("x-amz-server-side-encryption-aws-kms-key-id", key)) }
        }
        if let lock, RepositoryLayout.isPermanent(name) {
            let until = now.adding(seconds: Int64(lock.days) * 86_400)
            headers.append(("x-amz-object-lock-mode", lock.mode.rawValue.uppercased()))
            headers.append(("x-amz-object-lock-retain-until-date", "\(until.description.prefix(19))Z"))
        }
        return headers
    }

    /// What an answer's headers say otherwise than was asked for, as sentences with what that means.
    ///
    /// `now` is the time of the request that stored the object, or earlier.
    package func differences(
        _ header: (String) -> String?, of name: ObjectName, storedAt now: Timestamp
    ) -> [(what: String, isGrave: Bool)] {
        var found: [(what: String, isGrave: Bool)] = []
        // A store says nothing about the class that it keeps everything in.
        let kept = header("x-amz-storage-class") ?? "STANDARD"
        if let storageClass, kept != storageClass {
            found.append(("It keeps the object in storage class \(kept), not \(storageClass).", false))
        }
        let cipher = header("x-amz-server-side-encryption")
        switch encryption {
        case nil: break
        case .storeKeys where cipher != "AES256":
            found.append(("It does not encrypt the object (SSE-S3): it says \(cipher ?? "nothing").", true))
        case .storeKeys: break
        case .managedKey(let key):
            let used = header("x-amz-server-side-encryption-aws-kms-key-id")
            if cipher != "aws:kms" {
                found.append(
                    (
                        "It does not encrypt the object with a managed key (SSE-KMS): it says \(cipher ?? "nothing").",
                        true
                    ))
            } else if let key, let used, used != key, !used.hasSuffix("/" + key) {
                found.append(("It encrypts the object with key \(used), not \(key).", true))
            }
        }
        guard let lock, RepositoryLayout.isPermanent(name) else { return found }
        let mode = header("x-amz-object-lock-mode") ?? "none"
        if mode.lowercased() != lock.mode.rawValue {
            found.append(("It does not lock the object in mode \(lock.mode.rawValue): its mode is \(mode).", true))
        } else {
            let until = header("x-amz-object-lock-retain-until-date").flatMap { Timestamp(record: "\($0.prefix(19))Z") }
            // Whole seconds.
            let wanted = now.adding(seconds: Int64(lock.days) * 86_400 - 2)
            if until.map({ $0 < wanted }) ?? true {
                found.append(("It locks the object until \(until.map { "\($0)" } ?? "an unknown time") only.", true))
            }
        }
        return found
    }

    var isEmpty: Bool { storageClass == nil && encryption == nil && lock == nil }
}

extension S3Store {
    /// Looks once in the life of a store whether it keeps objects as it was asked to: at the first that it has stored.
    ///
    /// Throws `configuration` where it ignored encryption or lock. The object is there then.
    func confirmKept(_ name: ObjectName, storedAt now: Timestamp) throws(KedgeError) {
        guard !keeping.isEmpty, RepositoryLayout.isPermanent(name),
            !isKeepingConfirmed.load(ordering: .relaxed)
        else { return }
        let found = try keptDifferences(of: name, storedAt: now)
        let grave = found.filter(\.isGrave).map(\.what)
        guard grave.isEmpty else { throw ignored(grave, name) }
        if !isKeepingConfirmed.exchange(true, ordering: .relaxed), !found.isEmpty {
            warn("\(location) does not keep object \"\(name)\" as asked: \(found.map(\.what).joined(separator: " "))")
        }
    }

    /// What the store keeps otherwise than it was asked to. One request.
    func keptDifferences(
        of name: ObjectName, storedAt now: Timestamp
    ) throws(KedgeError) -> [(what: String, isGrave: Bool)] {
        let request = S3Client.Request(
            method: .get, key: client.location.key(of: name), headers: [("Range", "bytes=0-0")],
            sink: .bytes(limit: 1), attempt: "could not look how object \"\(name)\" is kept")
        let response = try client.expect(request)
        return keeping.differences({ response.header($0) }, of: name, storedAt: now)
    }

    private func ignored(_ sentences: [String], _ name: ObjectName) -> KedgeError {
        KedgeError(
            .configuration, "cannot rely on \(location): it does not keep object \"\(name)\" as it was asked to",
            detail: sentences.joined(separator: " "),
            hint:
                "Use a store and a bucket that can, or remove the keys server-side-encryption, kms-key-id, object-lock "
                + "and object-lock-days.")
    }
}
