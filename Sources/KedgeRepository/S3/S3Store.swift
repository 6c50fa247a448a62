// A store in a bucket of an object store that speaks the protocol of Amazon S3.
//
// 1. Whole or not at all: a PUT, or a multipart upload that is completed. Durable when acknowledged: the answer 200,
//    with an ETag, to a request whose Content-MD5 the store has checked.
// 2. Written once: `If-None-Match: *`. A store that ignores it (`conditionalPut` false) is asked before and read back
//    after; that excludes all but two writers at the same time.
// 3. Absent means absent: only the word NoSuchKey. HEAD has no words, so an object's status is asked by a GET of its
//    first byte. A missing bucket, a proxy's own 404 and a refusal are errors.
// 4. What a 200 says is not believed unread: an answer to Complete may hold an error, a range may be ignored, a listing
//    may be longer than asked.
// The differences between real stores: docs/object-stores.md.

import Curl
import Expat
package import KedgeCore
import Synchronization

/// An object store in a bucket.
package final class S3Store: ObjectStore {
    let client: S3Client
    package let capabilities: StoreCapabilities
    /// Of parts; the last one of an upload may be smaller.
    let partBytes: Int
    /// How the store is to keep objects.
    let keeping: S3Keeping
    /// Takes what somebody should look at although the store can be used.
    let warn: @Sendable (String) -> Void
    /// The store was seen to keep an object as it was asked to.
    let isKeepingConfirmed = Atomic(false)
    /// Whether many objects are removed by one request. TLS has to guard what it names on its way.
    let removesInBatches: Bool
    /// How many parts of uploads are held, of all uploads together.
    private let partsHeld = Monitor(0)

    /// See `S3PartSender`.
    static let partsInFlight = 12

    func takePartSlot() -> Bool {
        partsHeld.update { held in
            guard held < S3Store.partsInFlight else { return false }
            held += 1
            return true
        }
    }

    func forcePartSlot() { partsHeld.update { $0 += 1 } }

    func givePartSlot() { partsHeld.update { $0 -= 1 } }

    /// `conditionalPut`: whether the store honours `If-None-Match: *`, which `check` finds out. `removesInBatches`: by
    /// default only over TLS.
    package init(
        _ settings: S3ClientSettings, conditionalPut: Bool, keeping: S3Keeping = S3Keeping(),
        partBytes: Int = 8 << 20, removesInBatches: Bool? = nil, warn: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        client = S3Client(settings)
        self.removesInBatches = removesInBatches ?? (settings.location.scheme == "https")
        capabilities = StoreCapabilities(hasConditionalPut: conditionalPut)
        self.keeping = keeping
        self.warn = warn
        self.partBytes = partBytes
    }

    package var location: String { client.location.description }

    /// Tries whether the store honours conditional puts, and throws `configuration` where it does otherwise than was
    /// configured: a store that replaces what it should refuse would lose the first of two writers' objects.
    package func confirmConditionalPut(random: any RandomSource) throws(KedgeError) {
        guard let name = ObjectName("kedge-probe-\(RandomID(from: random).hex)") else { return }
        let isHonoured: Bool
        do throws(KedgeError) {
            isHonoured = try honoursConditionalPut(name)
        } catch {
            // It may have been stored all the same, and the next try would find a stranger.
            do throws(KedgeError) { _ = try remove([name]) } catch {}
            throw error
        }
        if let failure = try remove([name]).first { throw failure.error }
        guard isHonoured != capabilities.hasConditionalPut else { return }
        throw KedgeError(
            .configuration, "cannot use \(location) as it is configured",
            detail: isHonoured
                ? "It refuses to replace an object when asked to, and conditional-put = no says that it doesn't."
                : "It replaces an object although it is asked not to (If-None-Match).",
            hint: isHonoured
                ? "Remove conditional-put = no: with it two hosts could overwrite each other's objects."
                : "Set conditional-put = no, and let only one host write to this repository.")
    }

    private func honoursConditionalPut(_ name: ObjectName) throws(KedgeError) -> Bool {
        var request = S3Client.Request(
            method: .put, key: client.location.key(of: name), headers: [("If-None-Match", "*")], body: [[1]],
            attempt: "could not try whether the object store refuses to replace an object")
        try checkTag(client.expect(request), request.attempt)
        request.body = [[2]]
        switch try client.send(request) {
        case .good(let response):
            try checkTag(response, request.attempt)
            return false
        case .failure(let failure) where failure.isTaken: return true
        case .failure(let failure): throw failure.error(request.attempt, location: location)
        }
    }

    // MARK: Reading

    package func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? {
        let attempt = "could not look at object \"\(name)\""
        var request = reading(name, attempt)
        request.headers = [("Range", "bytes=0-0")]
        // A store that ignores ranges of tiny objects sends all of it, which is one byte or none.
        request.sink = .bytes(limit: 1)
        switch try client.send(request) {
        case .good(let response):
            let range = response.header("content-range").flatMap { ContentRange($0) }
            try checkTag(response, attempt)
            guard isFramed(response) else { throw wrongRange(attempt, response) }
            return ObjectStatus(
                sizeBytes: range?.objectBytes ?? UInt64(response.bodyBytes),
                modified: try modified(response, attempt))
        case .failure(let failure) where failure.isAbsentObject: return nil
        case .failure(let failure) where failure.isOutOfRange: return try statusOfEmpty(name, attempt)
        case .failure(let failure): throw failure.error(attempt, location: location)
        }
    }

    /// An object without bytes has no first byte to ask for.
    private func statusOfEmpty(_ name: ObjectName, _ attempt: String) throws(KedgeError) -> ObjectStatus {
        var request = reading(name, attempt)
        request.method = .head
        let response = try client.expect(request)
        try checkTag(response, attempt)
        return ObjectStatus(
            sizeBytes: response.header("content-length").flatMap { UInt64($0) } ?? 0,
            modified: try modified(response, attempt))
    }

    package func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        guard buffer.count > 0 else {
            guard try status(of: name) != nil else { throw objectNotFound(name, location: location) }
            return
        }
        let (end, overflow) = offset.addingReportingOverflow(UInt64(buffer.count))
        guard !overflow else { throw objectTooShort(name, location: location, end: .max) }
        var request = reading(name, "could not read object \"\(name)\"")
        request.headers = [("Range", "bytes=\(offset)-\(end - 1)")]
        request.sink = .buffer(buffer)
        switch try client.send(request) {
        case .good(let response):
            try checkTag(response, request.attempt)
            let range = response.header("content-range").flatMap { ContentRange($0) }
            // Without a range it is the whole object, which must then be what was asked for.
            guard let first = range?.first ?? (response.status == 200 ? 0 : nil), first == offset else {
                throw wrongRange(request.attempt, response)
            }
            guard response.bodyBytes == buffer.count else {
                // Only the object's own size makes it too short: the answer may have been cut on its way.
                if let range, range.objectBytes < end { throw objectTooShort(name, location: location, end: end) }
                throw wrongRange(request.attempt, response)
            }
        case .failure(let failure) where failure.isAbsentObject: throw objectNotFound(name, location: location)
        case .failure(let failure) where failure.isOutOfRange:
            throw objectTooShort(name, location: location, end: end)
        case .failure(let failure): throw failure.error(request.attempt, location: location)
        }
    }

    package func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        guard limit > 0 else {
            guard try status(of: name) != nil else { throw objectNotFound(name, location: location) }
            return []
        }
        var request = reading(name, "could not read object \"\(name)\"")
        request.headers = [("Range", "bytes=0-\(limit - 1)")]
        request.sink = .bytes(limit: limit)
        switch try client.send(request) {
        case .good(let response):
            try checkTag(response, request.attempt)
            let range = response.header("content-range").flatMap { ContentRange($0) }
            guard isFramed(response), range == nil || range?.first == 0 else {
                throw wrongRange(request.attempt, response)
            }
            let whole = range?.objectBytes ?? UInt64(response.bodyBytes)
            guard UInt64(response.bodyBytes) == min(whole, UInt64(limit)) else {
                throw wrongRange(request.attempt, response)
            }
            return response.body
        case .failure(let failure) where failure.isAbsentObject: throw objectNotFound(name, location: location)
        case .failure(let failure) where failure.isOutOfRange:
            return []
        case .failure(let failure): throw failure.error(request.attempt, location: location)
        }
    }

    private func reading(_ name: ObjectName, _ attempt: String) -> S3Client.Request {
        S3Client.Request(method: .get, key: client.location.key(of: name), attempt: attempt)
    }

    private func modified(_ response: HTTPResponse, _ attempt: String) throws(KedgeError) -> Timestamp {
        if let moment = response.header("last-modified").flatMap({ HTTPDate.parse($0) }) { return moment }
        throw KedgeError(
            .repositoryUnavailable, attempt, detail: "\(location) did not say when the object was stored.",
            hint: S3Failure.laterHint)
    }

    /// Throws `repository-unavailable` for an answer about an object that has no ETag: every S3 server sends one with
    /// GET, HEAD and PUT (Amazon S3 API reference). Its value is not held against anything: with encryption by a
    /// managed key it is no MD5, and looks like one.
    func checkTag(_ response: HTTPResponse, _ attempt: String) throws(KedgeError) {
        guard response.header("etag")?.isEmpty ?? true else { return }
        throw client.noStore(attempt, "status \(response.status) without an ETag")
    }

    /// Whether the answer says how long it is, and which part of the object it is. One whose head was cut off on its
    /// way does not, and would pass for that of an empty object.
    private func isFramed(_ response: HTTPResponse) -> Bool {
        if response.status == 206 { return response.header("content-range").flatMap { ContentRange($0) } != nil }
        return response.header("content-length") != nil || response.header("transfer-encoding") != nil
    }

    private func wrongRange(_ attempt: String, _ response: HTTPResponse) -> KedgeError {
        KedgeError(
            .repositoryUnavailable, attempt,
            detail: "\(location) sent other bytes than were asked for: status \(response.status), "
                + "\(response.header("content-range") ?? "no Content-Range"), \(response.bodyBytes) bytes.",
            hint: S3Failure.laterHint)
    }

    // MARK: Writing

    package func put(
        _ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition
    ) throws(KedgeError) -> PutOutcome {
        let isBlind = condition == .createOnly && !capabilities.hasConditionalPut
        if isBlind, try status(of: name) != nil { return .alreadyExists }
        let now = client.now
        var request = S3Client.Request(
            method: .put, key: client.location.key(of: name), headers: keeping.headers(for: name, at: now),
            body: body.parts,
            attempt: "could not store object \"\(name)\"")
        if condition == .createOnly, !isBlind { request.headers.append(("If-None-Match", "*")) }
        switch try client.send(request) {
        case .good(let response):
            try checkTag(response, request.attempt)
            try confirmKept(name, storedAt: now)
        case .failure(let failure) where failure.isTaken && condition == .createOnly: return .alreadyExists
        case .failure(let failure): throw failure.error(request.attempt, location: location)
        }
        guard isBlind else { return .created }
        return try begins(name, with: body) ? .created : .alreadyExists
    }

    /// Whether the object has the size and the first bytes of `body`: a sealed object's head is never that of another.
    private func begins(_ name: ObjectName, with body: ObjectBody) throws(KedgeError) -> Bool {
        guard try status(of: name)?.sizeBytes == UInt64(body.sizeBytes) else { return false }
        var head: [UInt8] = []
        for part in body.parts { head += part.prefix(S3Store.headBytes - head.count) }
        return try readPrefix(name, limit: S3Store.headBytes) == head
    }

    /// Enough to tell one sealed object from another.
    static let headBytes = 4096

    package func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        // A store takes at most 10,000 parts.
        let smallest = Int(clamping: expectedBytes / 9000 + 1)
        return S3Upload(name, partBytes: max(partBytes, smallest), store: self)
    }

    package func makeDurable(_ name: ObjectName) throws(KedgeError) {
        // What an object store shows is durable.
        guard try status(of: name) != nil else { throw objectNotFound(name, location: location) }
    }

    /// The document of an answer whose status was good. Throws what it says if it is an error all the same (lesson 18).
    func answer(_ response: HTTPResponse, root: String..., attempt: String) throws(KedgeError) -> XMLElement {
        let element: XMLElement
        do throws(KedgeError) {
            element = try XMLElement.parse(response.body, what: "the answer of \(location)")
        } catch {
            guard error.code == .damaged else { throw error }
            // An answer that was cut or garbled on its way; nothing that is stored is damaged.
            let id = response.header("x-amz-request-id").map { " Its request id is \($0)." } ?? ""
            throw KedgeError(
                .repositoryUnavailable, attempt,
                detail: "The answer of \(location) can't be read: \(error.detail ?? "it is no XML.")\(id)",
                hint: error.hint)
        }
        if root.contains(element.name) { return element }
        var failure = S3Failure(response, body: response.body)
        if failure.code == nil {
            failure = S3Failure(status: response.status, code: "InternalError", message: "<\(element.name)>")
        }
        throw failure.error(attempt, location: location)
    }
}

/// `bytes 0-9/100`: which bytes of an object an answer holds (RFC 9110, section 14.4).
struct ContentRange: Hashable {
    let first: UInt64
    let last: UInt64
    let objectBytes: UInt64

    /// Nil for any other form.
    init?(_ text: String) {
        let words = text.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 2, words[0] == "bytes" else { return nil }
        let numbers = words[1].split(omittingEmptySubsequences: false) { $0 == "-" || $0 == "/" }
        guard numbers.count == 3, let first = UInt64(numbers[0]), let last = UInt64(numbers[1]),
            let size = UInt64(numbers[2]), first <= last, last < size
        else { return nil }
        self.first = first
        self.last = last
        objectBytes = size
    }
}
