// An object store on paper: the protocol's answers from memory, with the habits of real stores, good and bad, as
// settings. What real stores do is S3ServerTests' matter.
import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// A bucket "bucket" behind HTTP in this process. It checks no signatures but whose they are.
package final class PaperObjectStore: Sendable {
    /// What the store does otherwise than the best would.
    package struct Habits: Sendable {
        package var ignoresConditions = false
        package var ignoresRanges = false
        package var ignoresMD5 = false
        package var ignoresStorageClass = false
        package var ignoresEncryption = false
        package var ignoresLock = false
        /// Says that there is more and shows the same again.
        package var repeatsListings = false
        package var listsBackwards = false
        /// What it calls its XML, and answers without a body.
        package var contentType: String?
        /// `Enabled`, `Suspended`, or none.
        package var versioning: String?
        package var hasLock = false
        /// Added to the present time in the header Date; requests whose time differs by a quarter of an hour are
        /// refused.
        package var clockOffset: Int64 = 0
        /// Others are sent there with a status and the header x-amz-bucket-region.
        package var region: (name: String, status: Int)?
        /// The first request of which it is true is carried out, and the connection ends instead of an answer.
        package var losesAnswer: (@Sendable (LocalHTTPServer.Request) -> Bool)?
        /// The access key ids that are known; nil: all.
        package var knownKeys: Set<String>?

        package init() {}
    }

    package struct Object: Sendable {
        package var bytes: [UInt8]
        /// Of the request that stored it, names in lower case.
        package var headers: [String: String]
    }

    private struct Upload {
        var key: String
        var headers: [String: String]
        var parts: [Int: [UInt8]] = [:]
    }

    private struct State {
        var objects: [String: Object] = [:]
        var uploads: [String: Upload] = [:]
        var habits = Habits()
        var requests: [String] = []
        var number = 0
        var busy = 0
        var mostBusy = 0
    }

    private let state: Monitor<State>
    private let server: LocalHTTPServer

    /// `interfere` is asked before each request is carried out, with its number from 1: what it returns is the answer.
    package init(
        _ interfere: @escaping @Sendable (LocalHTTPServer.Request, Int) -> LocalHTTPServer.Reply? = { _, _ in nil }
    ) throws(KedgeError) {
        let state = Monitor(State())
        self.state = state
        server = try LocalHTTPServer { request in
            let number = state.update { state in
                state.number += 1
                state.requests.append("\(request.method) \(request.target)")
                state.busy += 1
                state.mostBusy = max(state.mostBusy, state.busy)
                return state.number
            }
            defer { state.update { $0.busy -= 1 } }
            if let reply = interfere(request, number) { return reply }
            return state.update { state in
                let reply = PaperObjectStore.answer(request, number, &state).labelled(state.habits.contentType)
                guard state.habits.losesAnswer?(request) == true else { return reply }
                state.habits.losesAnswer = nil
                return .bytes([])
            }
        }
    }

    package var habits: Habits {
        get { state.update { $0.habits } }
        set { state.update { $0.habits = newValue } }
    }

    package var objects: [String: Object] { state.update { $0.objects } }
    package var unfinishedUploads: Int { state.update { $0.uploads.count } }
    /// Method and target of each, in the order in which they came.
    package var requests: [String] { state.update { $0.requests } }
    /// How many requests were under way at once, at most.
    package var mostRequestsAtOnce: Int { state.update { $0.mostBusy } }
    package var endpoint: String { server.endpoint }

    package func plant(_ key: String, _ bytes: [UInt8], headers: [String: String] = [:]) {
        state.update { $0.objects[key] = Object(bytes: bytes, headers: headers) }
    }

    /// What a client of it is made from.
    package func settings(
        prefix: String = "", region: String = "here", accessKeyID: String = "ID",
        credentials: (any S3CredentialSource)? = nil, time: any TimeSource = SystemTimeSource(),
        interruption: Interruption = Interruption()
    ) throws(KedgeError) -> S3ClientSettings {
        let location = try S3Location(
            endpoint: endpoint, region: region, bucket: "bucket", prefix: prefix, uriStyle: .path)
        let fixed = SameCredentials(
            credentials: S3Credentials(accessKeyID: accessKeyID, secretAccessKey: Secret(Array("secret".utf8))))
        return S3ClientSettings(
            location: location, credentials: credentials ?? fixed, time: time, interruption: interruption)
    }

    // MARK: - Answers

    private static func answer(
        _ request: LocalHTTPServer.Request, _ number: Int, _ state: inout State
    ) -> LocalHTTPServer.Reply {
        let now = SystemTimeSource().now().adding(seconds: state.habits.clockOffset)
        let fixed = [("x-amz-request-id", "REQ-\(number)"), ("Date", httpDate(now))]
        func reply(_ status: Int, _ body: String = "", _ headers: [(String, String)] = []) -> LocalHTTPServer.Reply {
            .answer(status, headers: fixed + headers, body: Array(body.utf8))
        }
        func fail(_ status: Int, _ code: String, _ headers: [(String, String)] = []) -> LocalHTTPServer.Reply {
            reply(status, "<Error><Code>\(code)</Code><Message>\(code) it is</Message></Error>", headers)
        }
        // Who asks, where, and when.
        let scope = (request.header("authorization") ?? "").split(separator: "=").dropFirst().first ?? ""
        let words = scope.split(separator: ",").first.map { $0.split(separator: "/") } ?? []
        guard words.count == 5 else { return fail(403, "AccessDenied") }
        if let known = state.habits.knownKeys, !known.contains(String(words[0])) { return fail(400, "ExpiredToken") }
        if let region = state.habits.region, region.name != words[2] {
            return fail(region.status, "PermanentRedirect", [("x-amz-bucket-region", region.name)])
        }
        if let sent = request.header("x-amz-date"), let time = moment(sent),
            abs(time.microseconds - now.microseconds) > 900_000_000
        {
            return fail(403, "RequestTimeTooSkewed")
        }
        let path = request.path.dropFirst()
        guard path == "bucket" || path.hasPrefix("bucket/") else { return fail(404, "NoSuchBucket") }
        let key = String(path.dropFirst("bucket/".count))
        var query: [String: String] = [:]
        for pair in request.target.drop(while: { $0 != "?" }).dropFirst().split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1)
            query[String(parts[0])] = parts.count == 2 ? S3Escaping.unescaped(String(parts[1])) ?? "" : ""
        }
        let exchange = Exchange(request: request, key: key, query: query, now: now, reply: reply, fail: fail)
        return key.isEmpty ? exchange.bucket(&state) : exchange.object(&state)
    }

    private static func moment(_ text: String) -> Timestamp? {
        let digits = Array(text.utf8)
        guard digits.count == 16 else { return nil }
        func part(_ range: Range<Int>) -> String { String(decoding: digits[range], as: UTF8.self) }
        return Timestamp(
            record: "\(part(0..<4))-\(part(4..<6))-\(part(6..<8))T\(part(9..<11)):\(part(11..<13)):\(part(13..<15))Z")
    }

    /// As in the header Date.
    private static func httpDate(_ time: Timestamp) -> String {
        let text = Array(time.description.utf8)
        func part(_ range: Range<Int>) -> String { String(decoding: text[range], as: UTF8.self) }
        let months = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ]
        let month = months[(Int(part(5..<7)) ?? 1) - 1]
        return "Sat, \(part(8..<10)) \(month) \(part(0..<4)) \(part(11..<19)) GMT"
    }

    private struct Exchange {
        let request: LocalHTTPServer.Request
        let key: String
        let query: [String: String]
        let now: Timestamp
        let reply: (Int, String, [(String, String)]) -> LocalHTTPServer.Reply
        let fail: (Int, String, [(String, String)]) -> LocalHTTPServer.Reply

        private var keptHeaders: [String: String] {
            var kept: [String: String] = [:]
            for (name, value) in request.headers
            where name.hasPrefix("x-amz-storage-class") || name.hasPrefix("x-amz-server-side-encryption")
                || name.hasPrefix("x-amz-object-lock")
            {
                kept[name] = value
            }
            return kept
        }

        private func isWhole(_ habits: Habits) -> Bool {
            guard !habits.ignoresMD5, let sent = request.header("content-md5") else { return true }
            do throws(KedgeError) {
                return try RequestHashing.md5([request.body]).base64Text == sent
            } catch {
                return false
            }
        }

        // MARK: Objects

        func object(_ state: inout State) -> LocalHTTPServer.Reply {
            switch request.method {
            case "PUT":
                guard isWhole(state.habits) else { return fail(400, "BadDigest", []) }
                guard let upload = query["uploadId"], let part = query["partNumber"].flatMap({ Int($0) }) else {
                    return put(Object(bytes: request.body, headers: keptHeaders), &state)
                }
                guard state.uploads[upload] != nil else { return fail(404, "NoSuchUpload", []) }
                state.uploads[upload]?.parts[part] = request.body
                return reply(200, "", [("ETag", "\"part-\(part)-\(request.body.count)\"")])
            case "POST" where query["uploads"] != nil:
                let id = "upload-\(state.number)"
                state.uploads[id] = Upload(key: key, headers: keptHeaders)
                return reply(
                    200, "<InitiateMultipartUploadResult><UploadId>\(id)</UploadId></InitiateMultipartUploadResult>", []
                )
            case "POST": return complete(&state)
            case "DELETE":
                guard let upload = query["uploadId"] else {
                    state.objects[key] = nil
                    return reply(204, "", [])
                }
                return state.uploads.removeValue(forKey: upload) == nil
                    ? fail(404, "NoSuchUpload", []) : reply(204, "", [])
            case "GET", "HEAD": return get(state)
            default: return fail(405, "MethodNotAllowed", [])
            }
        }

        private func put(_ object: Object, _ state: inout State) -> LocalHTTPServer.Reply {
            if request.header("if-none-match") == "*", !state.habits.ignoresConditions, state.objects[key] != nil {
                return fail(412, "PreconditionFailed", [])
            }
            var object = object
            let habits = state.habits
            object.headers = object.headers.filter { name, _ in
                !(habits.ignoresStorageClass && name == "x-amz-storage-class")
                    && !(habits.ignoresEncryption && name.hasPrefix("x-amz-server-side"))
                    && !(habits.ignoresLock && name.hasPrefix("x-amz-object-lock"))
            }
            object.headers["last-modified"] = httpDate(now)
            object.headers["listed"] = now.description
            state.objects[key] = object
            return reply(200, "", [("ETag", "\"tag\"")])
        }

        private func complete(_ state: inout State) -> LocalHTTPServer.Reply {
            guard let id = query["uploadId"], let upload = state.uploads[id] else {
                return fail(404, "NoSuchUpload", [])
            }
            let text = String(decoding: request.body, as: UTF8.self)
            var bytes: [UInt8] = []
            for (number, piece) in text.split(separator: "<Part>").dropFirst().enumerated() {
                guard let part = upload.parts[number + 1],
                    piece.contains("part-\(number + 1)-\(part.count)")
                else { return fail(400, "InvalidPart", []) }
                bytes += part
            }
            let answer = put(Object(bytes: bytes, headers: upload.headers), &state)
            guard case .answer(200, _, _) = answer else { return answer }
            state.uploads[id] = nil
            return reply(200, "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>", [])
        }

        private func get(_ state: State) -> LocalHTTPServer.Reply {
            guard let object = state.objects[key] else { return fail(404, "NoSuchKey", []) }
            var headers = object.headers.filter { $0.key != "listed" }.map { ($0.key, $0.value) }
            headers.append(("ETag", "\"tag\""))
            if object.headers["last-modified"] == nil { headers.append(("last-modified", httpDate(now))) }
            guard !state.habits.ignoresRanges, let range = request.header("range")?.dropFirst("bytes=".count) else {
                return answer(200, object.bytes, headers)
            }
            let ends = range.split(separator: "-").compactMap { Int($0) }
            guard ends.count == 2, ends[0] < object.bytes.count else { return fail(416, "InvalidRange", []) }
            let last = min(ends[1], object.bytes.count - 1)
            headers.append(("Content-Range", "bytes \(ends[0])-\(last)/\(object.bytes.count)"))
            return answer(206, Array(object.bytes[ends[0]...last]), headers)
        }

        private func answer(
            _ status: Int, _ bytes: [UInt8], _ headers: [(String, String)]
        ) -> LocalHTTPServer.Reply {
            guard case .answer(let status, let fixed, _) = reply(status, "", headers) else { return .silence }
            return .answer(status, headers: fixed, body: bytes)
        }

        // MARK: The bucket

        func bucket(_ state: inout State) -> LocalHTTPServer.Reply {
            if request.method == "POST", query["delete"] != nil {
                let text = String(decoding: request.body, as: UTF8.self)
                for piece in text.split(separator: "<Key>").dropFirst() {
                    state.objects[String(piece.prefix { $0 != "<" })] = nil
                }
                return reply(200, "<DeleteResult></DeleteResult>", [])
            }
            if query["versioning"] != nil {
                let status = state.habits.versioning.map { "<Status>\($0)</Status>" } ?? ""
                return reply(200, "<VersioningConfiguration>\(status)</VersioningConfiguration>", [])
            }
            if query["object-lock"] != nil {
                guard state.habits.hasLock else { return fail(404, "ObjectLockConfigurationNotFoundError", []) }
                return reply(
                    200,
                    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
                    [])
            }
            if query["uploads"] != nil { return uploads(state) }
            return list(state)
        }

        private func uploads(_ state: State) -> LocalHTTPServer.Reply {
            let items = state.uploads.sorted { $0.key < $1.key }.map { id, upload in
                "<Upload><Key>\(upload.key)</Key><UploadId>\(id)</UploadId>"
                    + "<Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>"
            }
            return reply(
                200,
                "<ListMultipartUploadsResult>\(items.joined())<IsTruncated>false</IsTruncated>"
                    + "</ListMultipartUploadsResult>", [])
        }

        private func list(_ state: State) -> LocalHTTPServer.Reply {
            let prefix = query["prefix"] ?? ""
            let after = state.habits.repeatsListings ? "" : query["continuation-token"] ?? query["start-after"] ?? ""
            let limit = query["max-keys"].flatMap { Int($0) } ?? 1000
            let all = state.objects.keys.filter { $0.hasPrefix(prefix) }.sorted {
                state.habits.listsBackwards ? $0 > $1 : $0 < $1
            }
            var items: [String] = []
            var seen: Set<String> = []
            var last = ""
            var isTruncated = false
            for key in all where key > after || state.habits.listsBackwards {
                var item = key
                if query["delimiter"] == "/", let slash = key.dropFirst(prefix.count).firstIndex(of: "/") {
                    item = String(key[...slash])
                    guard item > after, seen.insert(item).inserted else { continue }
                }
                if items.count == limit {
                    isTruncated = true
                    break
                }
                last = key
                guard item == key, let object = state.objects[key] else {
                    items.append("<CommonPrefixes><Prefix>\(item)</Prefix></CommonPrefixes>")
                    continue
                }
                items.append(
                    "<Contents><Key>\(key)</Key><Size>\(object.bytes.count)</Size><LastModified>"
                        + "\(object.headers["listed"] ?? now.description)</LastModified></Contents>")
            }
            let next = isTruncated ? "<NextContinuationToken>\(last)</NextContinuationToken>" : ""
            return reply(
                200,
                "<?xml version=\"1.0\"?><ListBucketResult>"
                    + "<IsTruncated>\(isTruncated || state.habits.repeatsListings)</IsTruncated>"
                    + "\(items.joined())\(next)</ListBucketResult>", [])
        }
    }
}

/// The same for ever.
private struct SameCredentials: S3CredentialSource {
    let credentials: S3Credentials

    func credentials(at moment: Timestamp) throws(KedgeError) -> S3Credentials { credentials }
}

extension LocalHTTPServer.Reply {
    /// With a content type of this name, if it is no object's content.
    fileprivate func labelled(_ type: String?) -> Self {
        guard let type, case .answer(let status, let headers, let body) = self,
            body.isEmpty || body.starts(with: Array("<?xml".utf8))
        else { return self }
        return .answer(status, headers: headers + [("Content-Type", type)], body: body)
    }
}
