// Listings of a bucket: ListObjectsV2 and ListMultipartUploads.
//
// Pages are asked for by the name that they begin after, not by the store's token: then a page can be asked for again,
// by any process. Keys that no object of ours can have are left out.

import Curl
import Expat
package import KedgeCore

extension S3Store {
    package func list(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> ListPage {
        precondition(limit > 0, "a page holds at least one object")
        var entries: [ListEntry] = []
        var position = after.map { client.location.key(of: $0) }
        var seen = Set(position.map { [$0] } ?? [])
        while true {
            let page = try listPage(below: directory, after: position, limit: limit)
            for object in page.answer.children("Contents") {
                guard let key = page.key(object.text(of: "Key")), let name = client.location.name(of: key),
                    name.isBelow(directory), S3Store.isListed(name, after: after)
                else { continue }
                // Some stores send more than was asked for.
                guard entries.count < limit else { return ListPage(entries: entries, next: entries.last?.name) }
                entries.append(ListEntry(name: name, status: try status(object)))
            }
            guard page.isTruncated else { return ListPage(entries: entries, next: nil) }
            if !entries.isEmpty { return ListPage(entries: entries, next: entries.last?.name) }
            // A page of strangers, or one that was there before.
            guard let last = page.lastKey, seen.insert(last).inserted else { throw endlessListing() }
            position = last
        }
    }

    /// Whether a name may come after another: stores compare whole names, or component by component. One that begins
    /// anew shows what was listed, and would be listed for ever if that counted (lesson 19).
    private static func isListed(_ name: ObjectName, after: ObjectName?) -> Bool {
        guard let after else { return true }
        return name > after || after.components.lexicographicallyPrecedes(name.components)
    }

    package func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage {
        precondition(limit > 0, "a page holds at least one directory")
        // All of them: stores differ in the order of directories, and there are few.
        var found: [ObjectName] = []
        for name in try allDirectories(below: directory).sorted(by: { $0.text + "/" < $1.text + "/" }) {
            if let after, name.text + "/" <= after.text + "/" { continue }
            // Some stores go on showing a directory whose objects were removed (lesson 19).
            guard try !list(below: name, after: nil, limit: 1).entries.isEmpty else { continue }
            guard found.count < limit else { return DirectoryPage(directories: found, next: found.last) }
            found.append(name)
        }
        return DirectoryPage(directories: found, next: nil)
    }

    private func allDirectories(below directory: ObjectName?) throws(KedgeError) -> Set<ObjectName> {
        var names: Set<ObjectName> = []
        var token: String?
        var seen: Set<String> = []
        while true {
            let page = try listPage(below: directory, after: nil, limit: 1000, delimiter: "/", token: token)
            for element in page.answer.children("CommonPrefixes") {
                guard let key = page.key(element.text(of: "Prefix")), key.hasSuffix("/"),
                    let name = client.location.name(of: String(key.dropLast())), name.isBelow(directory)
                else { continue }
                names.insert(name)
            }
            guard page.isTruncated else { return names }
            let next = page.answer.text(of: "NextContinuationToken") ?? ""
            guard !next.isEmpty, seen.insert(next).inserted else { throw endlessListing() }
            token = next
        }
    }

    package func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        var removed = 0
        var marker: (key: String, upload: String)?
        var seen: Set<[String]> = []
        while true {
            var query = [("uploads", ""), ("prefix", client.location.directoryKey(nil))]
            if let marker { query += [("key-marker", marker.key), ("upload-id-marker", marker.upload)] }
            let request = S3Client.Request(
                method: .get, key: nil, query: query, sink: .bytes(limit: S3Store.answerBytes),
                attempt: "could not list unfinished uploads")
            guard case .good(let response) = try sendAllowing("NoSuchUpload", request) else { return removed }
            let answer = try answer(response, root: "ListMultipartUploadsResult", attempt: request.attempt)
            for upload in answer.children("Upload") {
                guard let key = upload.text(of: "Key"), client.location.name(of: key) != nil,
                    let id = upload.text(of: "UploadId"),
                    let began = upload.text(of: "Initiated").flatMap(S3Store.time),
                    began < moment
                else { continue }
                try abortUpload(id, of: key)
                removed += 1
            }
            guard answer.text(of: "IsTruncated") == "true", let key = answer.text(of: "NextKeyMarker"),
                let upload = answer.text(of: "NextUploadIdMarker")
            else { return removed }
            guard seen.insert([key, upload]).inserted else { throw endlessListing() }
            marker = (key, upload)
        }
    }

    /// An answer that is good, or a failure with that one code.
    private func sendAllowing(_ code: String, _ request: S3Client.Request) throws(KedgeError) -> S3Client.Answer {
        let answer = try client.send(request)
        if case .failure(let failure) = answer, failure.code != code {
            throw failure.error(request.attempt, location: location)
        }
        return answer
    }

    /// Gives an unfinished upload up. One that is gone is no error.
    func abortUpload(_ id: String, of key: String) throws(KedgeError) {
        let request = S3Client.Request(
            method: .delete, key: key, query: [("uploadId", id)], attempt: "could not abort an upload of \"\(key)\"")
        guard case .failure(let failure) = try client.send(request), failure.status != 404 else { return }
        throw failure.error(request.attempt, location: location)
    }

    // MARK: - One page

    private static let answerBytes = 8 << 20

    /// An answer to ListObjectsV2.
    private struct RawPage {
        let answer: XMLElement
        private var isEscaped: Bool { answer.text(of: "EncodingType") == "url" }

        init(_ answer: XMLElement) { self.answer = answer }

        /// A key or a prefix as the store means it.
        func key(_ text: String?) -> String? { isEscaped ? text.flatMap(S3Escaping.unescaped) : text }

        /// There are more after this page.
        var isTruncated: Bool { answer.text(of: "IsTruncated") == "true" }

        /// The last key of this page, whoever it belongs to.
        var lastKey: String? { answer.children("Contents").last.flatMap { key($0.text(of: "Key")) } }
    }

    /// A store that says that there is more and shows nothing new would be asked for ever (lesson 19).
    private func endlessListing() -> KedgeError {
        KedgeError(
            .repositoryUnavailable, "could not list the objects of \(location)",
            detail: "The store says that there are more but does not show them.",
            hint: "Report this to the maker of the store: its listing is broken.")
    }

    private func listPage(
        below directory: ObjectName?, after: String?, limit: Int, delimiter: String? = nil, token: String? = nil
    ) throws(KedgeError) -> RawPage {
        var query = [
            ("list-type", "2"), ("encoding-type", "url"), ("max-keys", String(min(limit, 1000))),
            ("prefix", client.location.directoryKey(directory)),
        ]
        if let after { query.append(("start-after", after)) }
        if let token { query.append(("continuation-token", token)) }
        if let delimiter { query.append(("delimiter", delimiter)) }
        let what = directory.map { "below \"\($0)\"" } ?? "of the repository"
        let request = S3Client.Request(
            method: .get, key: nil, query: query, sink: .bytes(limit: S3Store.answerBytes),
            attempt: "could not list the objects \(what)")
        return RawPage(try answer(client.expect(request), root: "ListBucketResult", attempt: request.attempt))
    }

    private func status(_ object: XMLElement) throws(KedgeError) -> ObjectStatus {
        guard let size = object.text(of: "Size").flatMap({ UInt64($0) }),
            let modified = object.text(of: "LastModified").flatMap(S3Store.time)
        else {
            throw KedgeError(
                .repositoryUnavailable, "could not list the objects of \(location)",
                detail: "The store tells no size or no time of \"\(object.text(of: "Key") ?? "")\".",
                hint: "Report this to the maker of the store.")
        }
        return ObjectStatus(sizeBytes: size, modified: modified)
    }

    /// `2013-05-24T00:00:00.123Z`, cut to whole seconds: answers to GET tell no more.
    private static func time(_ text: String) -> Timestamp? { Timestamp(record: String(text.prefix(19)) + "Z") }
}
