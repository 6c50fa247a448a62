// An object whose length is not known yet: a multipart upload, or a single PUT where it turns out to be small.
//
// States: collecting → (first full part) uploading → finished or aborted. What an upload that died leaves behind is
// invisible, costs storage, and is taken away by `removeAbandonedWrites`.
// While one part is collected others are on their way (`S3PartSender`). Parts are numbered from 1 in the order of their
// bytes. A number is used again only for the same bytes, after an answer that is not known.

import Curl
import Expat
import KedgeCore

/// Used by one thread at a time.
final class S3Upload: ObjectUpload {
    private let name: ObjectName
    private let partBytes: Int
    private let store: S3Store
    /// What is not sent yet.
    private var waiting: [UInt8] = []
    /// The store's name for this upload, once there is one.
    private var uploadID: String?
    /// Sends the parts, once there is one.
    private var sender: S3PartSender?
    private var partCount = 0
    private var begunAt = Timestamp(microseconds: 0)
    private var sizeBytes: UInt64 = 0
    /// The object's first bytes: they tell it from any other.
    private var head: [UInt8] = []
    /// Somebody has been asked to make it an object, with an answer that is not known.
    private var mayBeComplete = false

    init(_ name: ObjectName, partBytes: Int, store: S3Store) {
        self.name = name
        self.partBytes = partBytes
        self.store = store
    }

    deinit { abort() }

    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) {
        // Before any of `bytes` is taken: when this throws, none was.
        if waiting.count >= partBytes { try sendPart() }
        waiting += bytes
        sizeBytes += UInt64(bytes.count)
        if head.count < S3Store.headBytes { head += bytes.prefix(S3Store.headBytes - head.count) }
    }

    func finish() throws(KedgeError) -> PutOutcome {
        guard uploadID != nil || waiting.count >= partBytes else { return try putWhole() }
        if try store.status(of: name) != nil {
            if mayBeComplete, try isOurs() { return .created }
            abort()
            return .alreadyExists
        }
        if !waiting.isEmpty { try sendPart() }
        return try complete(sender?.allTags(count: partCount) ?? [])
    }

    func abort() {
        // A part that arrives after the upload was aborted would stay behind.
        sender?.close()
        sender = nil
        guard let id = uploadID else { return }
        uploadID = nil
        do throws(KedgeError) {
            try store.abortUpload(id, of: key)
        } catch {
            // It stays behind unseen until `removeAbandonedWrites`; the caller has its own error to tell.
        }
    }

    private var key: String { store.client.location.key(of: name) }

    private func putWhole() throws(KedgeError) -> PutOutcome {
        let wasTried = mayBeComplete
        mayBeComplete = true
        let outcome = try store.put(name, ObjectBody(waiting), .createOnly)
        guard outcome == .alreadyExists, wasTried, try isOurs() else { return outcome }
        return .created
    }

    private func isOurs() throws(KedgeError) -> Bool {
        guard try store.status(of: name)?.sizeBytes == sizeBytes else { return false }
        return try store.readPrefix(name, limit: S3Store.headBytes) == head
    }

    private func sendPart() throws(KedgeError) {
        let sender = try beginIfNeeded()
        try sender.submit(S3PartSender.Part(number: partCount + 1, bytes: waiting))
        partCount += 1
        waiting = []
        waiting.reserveCapacity(partBytes)
    }

    private func beginIfNeeded() throws(KedgeError) -> S3PartSender {
        if let sender { return sender }
        let begunAt = store.client.now
        let request = S3Client.Request(
            method: .post, key: key, query: [("uploads", "")], headers: store.keeping.headers(for: name, at: begunAt),
            attempt: "could not begin the upload of object \"\(name)\"")
        self.begunAt = begunAt
        // The second name is rclone's.
        let answer = try store.answer(
            store.client.expect(request), root: "InitiateMultipartUploadResult", "InitiateMultipartUpload",
            attempt: request.attempt)
        guard let id = answer.text(of: "UploadId"), !id.isEmpty else {
            throw KedgeError(
                .repositoryUnavailable, request.attempt, detail: "\(store.location) gave the upload no id.",
                hint: S3Failure.laterHint)
        }
        uploadID = id
        let begun = S3PartSender(name, upload: id, store: store)
        sender = begun
        return begun
    }

    private func complete(_ tags: [String]) throws(KedgeError) -> PutOutcome {
        guard let id = uploadID else {
            throw KedgeError(.defect, "could not complete object \"\(name)\": it was aborted", hint: "Report this.")
        }
        let parts = tags.enumerated().map { index, tag in
            "<Part><PartNumber>\(index + 1)</PartNumber><ETag>\(tag.xmlText)</ETag></Part>"
        }
        let document =
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\(parts.joined())"
            + "</CompleteMultipartUpload>"
        var request = S3Client.Request(
            method: .post, key: key, query: [("uploadId", id)], body: [Array(document.utf8)],
            attempt: "could not complete object \"\(name)\"")
        if store.capabilities.hasConditionalPut { request.headers.append(("If-None-Match", "*")) }
        mayBeComplete = true
        switch try store.client.send(request) {
        case .good(let response):
            // It may be an error all the same (lesson 18), and the tag may be missing from a good one.
            _ = try store.answer(response, root: "CompleteMultipartUploadResult", attempt: request.attempt)
        case .failure(let failure) where failure.isTaken:
            // By an earlier attempt whose answer was lost, or by somebody else.
            guard try isOurs() else {
                abort()
                return .alreadyExists
            }
        case .failure(let failure) where failure.code == "NoSuchUpload":
            // An earlier attempt may have completed it.
            guard try isOurs() else { throw failure.error(request.attempt, location: store.location) }
        case .failure(let failure): throw failure.error(request.attempt, location: store.location)
        }
        uploadID = nil
        sender?.close()
        sender = nil
        // Not every store refuses a name that was taken meanwhile, or says so.
        guard try isOurs() else { return .alreadyExists }
        try store.confirmKept(name, storedAt: begunAt)
        return .created
    }
}

extension String {
    /// Escaped for the text of an element.
    fileprivate var xmlText: String {
        var text = ""
        for character in self {
            switch character {
            case "&": text += "&amp;"
            case "<": text += "&lt;"
            case ">": text += "&gt;"
            case "\"": text += "&quot;"
            default: text.append(character)
            }
        }
        return text
    }
}
