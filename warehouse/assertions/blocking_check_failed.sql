-- blocking checks that failed on an artefact a study stands for
select * from staging.checks where blocking and not passed
