// What an object store can do, found out by trying it: each thing is a finding with what it means for backups. It
// writes a few objects under names of its own and removes them.

import Curl
import Expat
package import KedgeCore

/// One thing that a store was tried for.
package struct StoreFinding: Sendable {
    package enum Verdict: Sendable {
        case good
        /// It works without it; the sentence says what it means.
        case lacking(String)
        /// Nothing should be kept there as it is.
        case broken(KedgeError)
    }

    /// What was tried, such as `conditional put`.
    package let what: String
    /// What was seen.
    package let seen: String
    package let verdict: Verdict

    package init(_ what: String, _ seen: String, _ verdict: Verdict = .good) {
        self.what = what
        self.seen = seen
        self.verdict = verdict
    }
}

/// Tries one store.
package struct S3Doctor {
    private let store: S3Store
    private let random: any RandomSource
    private let time: any TimeSource
    private let directory: ObjectName

    /// Of what is written and read to measure how fast that is.
    private static let sampleBytes = 8 << 20

    package init(_ store: S3Store, random: any RandomSource, time: any TimeSource) {
        self.store = store
        self.random = random
        self.time = time
        directory = ObjectName("kedge-probe-\(RandomID(from: random).hex)") ?? "kedge-probe"
    }

    /// Throws `interrupted`, and what asking for anything at all throws; what one trial throws is a finding.
    package func run() throws(KedgeError) -> [StoreFinding] {
        var findings: [StoreFinding] = [try clock()]
        let trials: [(what: String, run: () throws(KedgeError) -> StoreFinding)] = [
            ("conditional put", conditionalPut), ("ranges", ranges), ("listings", listings), ("checksums", checksums),
            ("versioning", versioning), ("object lock", objectLock), ("keeping", keeping), ("speed", speed),
        ]
        for trial in trials {
            do throws(KedgeError) {
                findings.append(try trial.run())
            } catch {
                guard error.code != .interrupted else { throw error }
                findings.append(StoreFinding(trial.what, "it could not be tried", .broken(error)))
            }
        }
        for failure in try store.remove(names) {
            findings.append(StoreFinding("removal", "\"\(failure.name)\" could not be removed", .broken(failure.error)))
        }
        return findings
    }

    private var names: [ObjectName] {
        ["once", "large", "wrong", "kept", "list/1", "list/2", "list/3"].map(name)
    }

    private func name(_ last: String) -> ObjectName { directory.appending(last) ?? directory }

    private func broken(_ what: String, _ detail: String) -> KedgeError {
        KedgeError(
            .configuration, "cannot rely on \(store.location): \(what)", detail: detail,
            hint: "Use another store, or ask its maker; docs/object-stores.md lists what was tried.")
    }

    // MARK: - Trials

    /// The first request: it also brings the store's clock.
    private func clock() throws(KedgeError) -> StoreFinding {
        var request = S3Client.Request(
            method: .get, key: nil, query: [("list-type", "2"), ("max-keys", "1")],
            attempt: "could not reach the object store")
        request.sink = .bytes(limit: 1 << 20)
        let before = time.now()
        let response = try store.client.expect(request)
        guard let date = response.header("date").flatMap({ HTTPDate.parse($0) }) else {
            return StoreFinding("clock", "the store does not tell its time", .lacking("Keep this host's clock right."))
        }
        // The answer tells whole seconds of a moment between `before` and now.
        let seconds = (date.microseconds - before.microseconds) / 1_000_000
        let seen = "the store's clock differs from this host's by \(seconds) s"
        guard abs(seconds) > 60 else { return StoreFinding("clock", seen) }
        return StoreFinding(
            "clock", seen,
            .lacking("Set this host's clock: requests are signed with the store's, but times of backups are not."))
    }

    private func conditionalPut() throws(KedgeError) -> StoreFinding {
        let request = S3Client.Request(
            method: .put, key: store.client.location.key(of: name("once")), headers: [("If-None-Match", "*")],
            body: [[1]], attempt: "could not try a conditional put")
        _ = try store.client.expect(request)
        let isHonoured: Bool
        switch try store.client.send(request) {
        case .good: isHonoured = false
        case .failure(let failure) where failure.isTaken: isHonoured = true
        case .failure(let failure): throw failure.error(request.attempt, location: store.location)
        }
        switch (isHonoured, store.capabilities.hasConditionalPut) {
        case (true, true): return StoreFinding("conditional put", "an object is never replaced by mistake")
        case (false, false):
            return StoreFinding(
                "conditional put", "the store ignores If-None-Match, as conditional-put = no says",
                .lacking("Two hosts that write one object at the same moment can't be told apart."))
        case (false, true):
            return StoreFinding(
                "conditional put", "the store ignores If-None-Match",
                .broken(broken("it replaces an object although it is asked not to", "Set conditional-put = no.")))
        case (true, false):
            return StoreFinding(
                "conditional put", "the store honours If-None-Match, although conditional-put = no",
                .lacking("Remove conditional-put = no: the store can do better."))
        }
    }

    private func ranges() throws(KedgeError) -> StoreFinding {
        let bytes = (0..<100).map { UInt8($0) }
        _ = try store.put(name("large"), ObjectBody(bytes), .replace)
        let read = try store.read(name("large"), range: 10..<20)
        guard read == Array(bytes[10..<20]), try store.readPrefix(name("large"), limit: 5) == Array(bytes[..<5]) else {
            return StoreFinding("ranges", "other bytes than asked for", .broken(broken("it sends wrong ranges", "")))
        }
        return StoreFinding("ranges", "exactly the bytes that are asked for")
    }

    private func listings() throws(KedgeError) -> StoreFinding {
        let all = ["list/1", "list/2", "list/3"].map(name)
        for name in all { _ = try store.put(name, ObjectBody([1]), .replace) }
        let below = name("list")
        let first = try store.list(below: below, after: nil, limit: 2)
        let second = try store.list(below: below, after: first.next ?? all[1], limit: 2)
        let seen = (first.entries + second.entries).map(\.name)
        guard seen == all, first.entries.count == 2, second.next == nil else {
            return StoreFinding(
                "listings", "\(seen.map(\.lastComponent).joined(separator: ", ")) instead of 1, 2, 3",
                .broken(broken("its listings are out of order, or do not go on where they ended", "")))
        }
        return StoreFinding("listings", "in order, and continued where a page ended")
    }

    private func checksums() throws(KedgeError) -> StoreFinding {
        // The hash of nothing, with a byte.
        let request = S3Client.Request(
            method: .put, key: store.client.location.key(of: name("wrong")),
            headers: [("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==")], body: [[1]],
            attempt: "could not try whether the object store checks what arrives")
        switch try store.client.send(request) {
        case .failure(let failure) where (400..<500).contains(failure.status):
            return StoreFinding("checksums", "a body that was damaged on its way is refused")
        case .failure(let failure): throw failure.error(request.attempt, location: store.location)
        case .good:
            return StoreFinding(
                "checksums", "the store takes a body that does not fit its Content-MD5",
                .lacking(
                    store.client.location.scheme == "https"
                        ? "TLS alone guards what is stored on its way; verify finds damage later."
                        : "Use https: nothing else guards what is stored on its way."))
        }
    }

    /// The document that the bucket's sub-resource `name` is; nil where it has none, or the store does not know it.
    private func configuration(_ name: String, root: String) throws(KedgeError) -> XMLElement? {
        let request = S3Client.Request(
            method: .get, key: nil, query: [(name, "")], attempt: "could not ask for the bucket's \(name)")
        guard case .good(let response) = try store.client.send(request) else { return nil }
        let element = try XMLElement.parse(response.body, what: "the answer of \(store.location)")
        return element.name == root ? element : nil
    }

    private func versioning() throws(KedgeError) -> StoreFinding {
        guard let answer = try configuration("versioning", root: "VersioningConfiguration") else {
            return StoreFinding("versioning", "the store does not tell")
        }
        guard answer.text(of: "Status") == "Enabled" else {
            return StoreFinding("versioning", "off: what is removed is gone, and its room free")
        }
        return StoreFinding(
            "versioning", "on",
            .lacking(
                "What expire removes goes on taking room: let a lifecycle rule of the bucket remove old versions."
            ))
    }

    private func objectLock() throws(KedgeError) -> StoreFinding {
        let answer = try configuration("object-lock", root: "ObjectLockConfiguration")
        let isOn = answer?.text(of: "ObjectLockEnabled") == "Enabled"
        guard store.keeping.lock != nil, !isOn else {
            return StoreFinding("object lock", isOn ? "the bucket has it" : "the bucket does not have it")
        }
        return StoreFinding(
            "object lock", "the bucket does not have it",
            .broken(broken("the bucket has no object lock", "The configuration asks for it with object-lock.")))
    }

    private func keeping() throws(KedgeError) -> StoreFinding {
        guard store.keeping.storageClass != nil || store.keeping.encryption != nil else {
            return StoreFinding("keeping", "as the bucket does by default")
        }
        let now = store.client.now
        _ = try store.put(name("kept"), ObjectBody([1]), .replace)
        let found = try store.keptDifferences(of: name("kept"), storedAt: now)
        let told = found.map(\.what).joined(separator: " ")
        if found.contains(where: \.isGrave) {
            return StoreFinding(
                "keeping", "not as asked", .broken(broken("it ignores how objects are to be kept", told)))
        }
        return found.isEmpty
            ? StoreFinding("keeping", "with the storage class and the encryption that were asked for")
            : StoreFinding("keeping", "not as asked", .lacking(told))
    }

    private func speed() throws(KedgeError) -> StoreFinding {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(S3Doctor.sampleBytes)
        // Not to be compressed on the way.
        while bytes.count < S3Doctor.sampleBytes {
            withUnsafeBytes(of: random.next()) { bytes.append(contentsOf: $0) }
        }
        func rate(_ body: () throws(KedgeError) -> Void) throws(KedgeError) -> String {
            let start = time.monotonicNanoseconds()
            try body()
            let seconds = Double(max(time.monotonicNanoseconds() - start, 1)) / 1e9
            return HumanText.rate(bytesPerSecond: Double(bytes.count) / seconds)
        }
        let up = try rate { () throws(KedgeError) in
            _ = try store.put(name("large"), ObjectBody(bytes), .replace)
        }
        let down = try rate { () throws(KedgeError) in
            _ = try store.read(name("large"), range: 0..<UInt64(bytes.count))
        }
        return StoreFinding("speed", "one connection stores \(up) and reads \(down)")
    }
}
