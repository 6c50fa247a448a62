// An object whose length is not known yet: a multipart upload, or a single PUT where it turns out to be small.
//
// States: collecting → (first full part) uploading → finished or aborted. What an upload that died leaves behind is
// invisible, costs storage, and is taken away by `removeAbandonedWrites`.
// One part is in memory. Parts go up in their order, numbered from 1, and no number is used twice: not every store can
// replace a part.

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
    /// The tags of the parts that are there, from part 1 on.
    private var tags: [String] = []
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
        return try complete()
    }

    func abort() {
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
        let id = try beginIfNeeded()
        let number = tags.count + 1
        let request = S3Client.Request(
            method: .put, key: key, query: [("partNumber", String(number)), ("uploadId", id)], body: [waiting],
            attempt: "could not store part \(number) of object \"\(name)\"")
        let response = try store.client.expect(request)
        guard let tag = response.header("etag"), !tag.isEmpty else {
            throw KedgeError(
                .repositoryUnavailable, request.attempt, detail: "\(store.location) gave the part no tag.",
                hint: S3Failure.laterHint)
        }
        tags.append(tag)
        waiting.removeAll(keepingCapacity: true)
    }

    private func beginIfNeeded() throws(KedgeError) -> String {
        if let uploadID { return uploadID }
        let request = S3Client.Request(
            method: .post, key: key, query: [("uploads", "")], headers: store.storageHeaders,
            attempt: "could not begin the upload of object \"\(name)\"")
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
        return id
    }

    private func complete() throws(KedgeError) -> PutOutcome {
        let id = try beginIfNeeded()
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
            abort()
            return .alreadyExists
        case .failure(let failure) where failure.code == "NoSuchUpload":
            // An earlier attempt may have completed it.
            guard try isOurs() else { throw failure.error(request.attempt, location: store.location) }
        case .failure(let failure): throw failure.error(request.attempt, location: store.location)
        }
        uploadID = nil
        // Not every store refuses a name that was taken meanwhile, or says so.
        return try isOurs() ? .created : .alreadyExists
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
