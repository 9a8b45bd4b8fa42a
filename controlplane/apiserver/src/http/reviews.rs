//! Kinds that are questions: who somebody is, and what they may do. They are created, answered, and never stored.
//!
//! # Source
//! Kubernetes `pkg/registry/authentication/*/storage.go`, `pkg/registry/authorization/*/rest.go`.

use http::StatusCode;
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo},
    authorization::v1::{
        LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
        SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus,
        SubjectRulesReviewStatus,
    },
};
use podium_api::{ApiError, FieldErrors, Object, Reason};

use super::{
    Frontend,
    negotiate::{self, Form, Offers},
    path::Target,
    resources::{Ask, context, decode},
    respond::{self, Answer},
};
use crate::auth::{Attributes, Identity};

impl Frontend {
    /// Answers a question.
    ///
    /// # Errors
    /// 400 and 422 for what is wrong with it, 406 when it is to be answered in another form than its own.
    pub(super) async fn review(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, .. } = ask;
        let shape = negotiate::negotiate(
            call.accept(),
            Offers { protobuf: true, known: negotiate::OBJECTS, ..Offers::texts(|form| form == Form::Object) },
        )?;
        let context = context(call)?;
        let mut object = decode(ask, &context)?;
        let kind = &resource.kind;
        // The namespace of the path is that of a question that names none.
        let namespace = &mut object.meta_mut().namespace;
        if !target.namespace.is_empty() && namespace.as_deref().unwrap_or_default().is_empty() {
            *namespace = Some(target.namespace.to_owned());
        }
        kind.fill_defaults(&mut *object);
        kind.prepare_create(&mut *object);
        let mut errs = FieldErrors::new();
        kind.validate(&*object, &mut errs);
        if !errs.is_empty() {
            return Err(ApiError::invalid(&resource.names, object.meta().name.as_deref().unwrap_or_default(), errs));
        }
        self.answer_review(&mut *object, target, call.who)?;
        let mut answer = respond::value(StatusCode::CREATED, shape.encoding, &*object)?;
        respond::warn(&mut answer, &context.warnings());
        Ok(answer)
    }

    fn answer_review(&self, object: &mut dyn Object, target: &Target<'_>, who: &Identity) -> Result<(), ApiError> {
        if let Some(review) = object.downcast_mut::<SelfSubjectReview>() {
            review.status = Some(SelfSubjectReviewStatus { user_info: Some(user_info(who)) });
        } else if let Some(review) = object.downcast_mut::<TokenReview>() {
            review.status = Some(self.token_status(review));
        } else if let Some(review) = object.downcast_mut::<SelfSubjectAccessReview>() {
            let spec = &review.spec;
            let asked = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
            review.status = Some(self.access(who, asked)?);
        } else if let Some(review) = object.downcast_mut::<SubjectAccessReview>() {
            let spec = &review.spec;
            let asked = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
            review.status = Some(self.access(&subject(spec.user.as_ref(), spec.groups.as_ref()), asked)?);
        } else if let Some(review) = object.downcast_mut::<LocalSubjectAccessReview>() {
            let spec = &review.spec;
            let attributes = spec.resource_attributes.as_ref();
            let namespace = attributes.and_then(|a| a.namespace.as_deref()).unwrap_or_default();
            if namespace != target.namespace {
                let message = format!(
                    "spec.resourceAttributes.namespace must match namespace: {namespace:?} is not {:?}",
                    target.namespace
                );
                return Err(ApiError::bad_request(message));
            }
            let who = subject(spec.user.as_ref(), spec.groups.as_ref());
            review.status = Some(self.access(&who, (attributes, None))?);
        } else if let Some(review) = object.downcast_mut::<SelfSubjectRulesReview>() {
            let namespace = review.spec.namespace.as_deref().unwrap_or_default();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            review.status = Some(self.rules(who, namespace));
        } else {
            return Err(ApiError::new(Reason::MethodNotAllowed, "this kind of question is not answered"));
        }
        Ok(())
    }

    fn token_status(&self, review: &TokenReview) -> TokenReviewStatus {
        let token = &*review.spec.token;
        match self.token_identity(token) {
            Some(who) => TokenReviewStatus {
                authenticated: Some(true),
                audiences: review.spec.audiences.clone(),
                user: Some(user_info(&who)),
                ..TokenReviewStatus::default()
            },
            None => TokenReviewStatus {
                authenticated: Some(false),
                user: Some(UserInfo::default()),
                error: Some("the token is unknown or has expired".to_owned()),
                ..TokenReviewStatus::default()
            },
        }
    }

    fn access(
        &self,
        who: &Identity,
        asked: (Option<&ResourceAttributes>, Option<&NonResourceAttributes>),
    ) -> Result<SubjectAccessReviewStatus, ApiError> {
        let text = |t: &'_ Option<String>| t.clone().unwrap_or_default();
        let decision = match asked {
            (Some(resource), None) => {
                let [verb, group, name] = [&resource.verb, &resource.group, &resource.name].map(text);
                let [plural, subresource, namespace] =
                    [&resource.resource, &resource.subresource, &resource.namespace].map(text);
                let what = Attributes {
                    verb: &verb,
                    group: &group,
                    resource: &plural,
                    subresource: &subresource,
                    namespace: &namespace,
                    name: &name,
                    path: "",
                };
                self.authorizer.decide(who, &what)
            }
            (None, Some(other)) => {
                let [verb, path] = [&other.verb, &other.path].map(text);
                let what = Attributes { verb: &verb, path: &path, ..Attributes::default() };
                self.authorizer.decide(who, &what)
            }
            _ => {
                let message = "exactly one of resourceAttributes and nonResourceAttributes must be given";
                return Err(ApiError::bad_request(message));
            }
        };
        let (allowed, reason) = (decision.allowed, Some(decision.reason).filter(|r| !r.is_empty()));
        Ok(SubjectAccessReviewStatus { allowed, reason, ..SubjectAccessReviewStatus::default() })
    }

    /// What somebody has been granted in a namespace.
    fn rules(&self, who: &Identity, namespace: &str) -> SubjectRulesReviewStatus {
        let (rules, error) = self.registry.rbac().rules(who, namespace);
        let mut status = SubjectRulesReviewStatus {
            evaluation_error: Some(error).filter(|e| !e.is_empty()),
            ..SubjectRulesReviewStatus::default()
        };
        let some = |list: Option<Vec<String>>| list.filter(|l| !l.is_empty());
        for rule in rules {
            if let Some(urls) = some(rule.non_resource_urls) {
                let rule = NonResourceRule { verbs: rule.verbs.clone(), non_resource_urls: Some(urls) };
                status.non_resource_rules.push(rule);
            }
            if let Some(resources) = some(rule.resources) {
                status.resource_rules.push(ResourceRule {
                    verbs: rule.verbs,
                    api_groups: rule.api_groups,
                    resources: Some(resources),
                    resource_names: some(rule.resource_names),
                });
            }
        }
        status
    }
}

fn subject(user: Option<&String>, groups: Option<&Vec<String>>) -> Identity {
    let groups: Vec<&str> = groups.into_iter().flatten().map(String::as_str).collect();
    Identity::new(user.map(String::as_str).unwrap_or_default(), &groups)
}

/// Somebody, in the words of the API.
pub(crate) fn user_info(who: &Identity) -> UserInfo {
    UserInfo {
        username: Some(who.user.clone()),
        groups: Some(who.groups.clone()).filter(|g| !g.is_empty()),
        uid: Some(who.uid.clone()).filter(|u| !u.is_empty()),
        extra: Some(who.extra.clone()).filter(|e| !e.is_empty()),
    }
}
