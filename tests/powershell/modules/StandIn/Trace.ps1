# Message trace: Get-MessageTraceV2 and Get-MessageTraceDetailV2, with their limits.

# Writes a message into the trace of a tenant. -Event: rows of the detail, each @{ Event = ..; Detail = .. }.
function Add-StandInTrace {
    param(
        [string]$TenantId, [string]$Sender, [string]$Recipient, [string]$Subject = '', [string]$Status = 'Delivered',
        [datetime]$Received = $script:World.Clock, [object[]]$Event = @(), [string]$MessageId = ''
    )
    if (-not $MessageId) { $MessageId = '<' + [guid]::NewGuid().ToString() + '@standin>' }
    [void]$script:World.Tenants[$TenantId].Traces.Add([pscustomobject]@{
        MessageTraceId = [guid]::NewGuid(); MessageId = $MessageId; Received = (ConvertTo-StandInUtc $Received); SenderAddress = $Sender; RecipientAddress = $Recipient
        Subject = $Subject; Status = $Status; FromIP = '192.0.2.25'; ToIP = ''; Size = 4096; Event = @($Event)
    })
}

function Assert-StandInRate {
    param($Tenant)
    $since = [datetime]::UtcNow.AddMinutes(-5)
    $Tenant.TraceQueries = @(@($Tenant.TraceQueries | Where-Object { $_ -gt $since }) + [datetime]::UtcNow)
    if ($Tenant.TraceQueries.Count -gt 100) {
        throw (New-StandInFailure -Kind 'TooManyRequests' -Message 'Too many requests: 100 message trace queries in 5 minutes are allowed')
    }
}

# The span that a query asks for; without dates the last two days.
function Get-StandInSpan {
    param([hashtable]$Given)
    $end = $script:World.Clock
    if ($Given.ContainsKey('EndDate')) { $end = ConvertTo-StandInUtc $Given['EndDate'] }
    $start = $end.AddDays(-2)
    if ($Given.ContainsKey('StartDate')) { $start = ConvertTo-StandInUtc $Given['StartDate'] }
    if ($Given.ContainsKey('StartDate') -ne $Given.ContainsKey('EndDate')) { throw (New-StandInFailure -Kind 'InvalidExpressionException' -Message 'StartDate and EndDate must be given together') }
    if ($start -gt $end) { throw (New-StandInFailure -Kind 'InvalidExpressionException' -Message 'StartDate lies after EndDate') }
    if (($end - $start).TotalDays -gt 10) { throw (New-StandInFailure -Kind 'InvalidExpressionException' -Message 'A query covers at most 10 days') }
    if (($script:World.Clock - $start).TotalDays -gt 90) { throw (New-StandInFailure -Kind 'InvalidExpressionException' -Message 'StartDate lies more than 90 days back') }
    @{ Start = $start; End = $end }
}

$script:Handlers['Get-MessageTraceV2'] = {
    param($call)
    $given = $call.Given
    Assert-StandInRate -Tenant $call.Tenant
    $span = Get-StandInSpan -Given $given
    $size = 1000
    if ($given.ContainsKey('ResultSize')) {
        $size = $given['ResultSize']
        if ($size -lt 1 -or $size -gt 5000) { throw (New-StandInFailure -Kind 'InvalidExpressionException' -Message 'ResultSize lies between 1 and 5000') }
    }
    $rows = @($call.Tenant.Traces | Where-Object { $_.Received -ge $span.Start -and $_.Received -le $span.End })
    foreach ($pair in @(@('SenderAddress', 'SenderAddress'), @('RecipientAddress', 'RecipientAddress'), @('MessageId', 'MessageId'), @('MessageTraceId', 'MessageTraceId'), @('Status', 'Status'))) {
        if (-not $given.ContainsKey($pair[0])) { continue }
        $wanted = @($given[$pair[0]] | ForEach-Object { [string]$_ })
        $column = $pair[1]
        $rows = @($rows | Where-Object { $value = [string]$_.$column; @($wanted | Where-Object { $value -like $_ }).Count -gt 0 })
    }
    if ($given.ContainsKey('Subject')) {
        $kind = 'Contains'
        if ($given.ContainsKey('SubjectFilterType')) { $kind = $given['SubjectFilterType'] }
        $text = [System.Management.Automation.WildcardPattern]::Escape($given['Subject'])
        $pattern = @{ Contains = "*$text*"; StartsWith = "$text*"; EndsWith = "*$text" }[$kind]
        $rows = @($rows | Where-Object { $_.Subject -like $pattern })
    }
    $rows = @($rows | Sort-Object -Property @{ Expression = 'Received'; Descending = $true }, @{ Expression = 'RecipientAddress'; Descending = $false })
    if ($given.ContainsKey('StartingRecipientAddress')) {
        $from = $given['StartingRecipientAddress']
        $rows = @($rows | Where-Object { $_.Received -lt $span.End -or [string]::Compare($_.RecipientAddress, $from, $true) -ge 0 })
    }
    if ($rows.Count -gt $size) {
        $last = $rows[$size - 1]
        $call.Answer.Warnings += "There are more results: go on with -StartingRecipientAddress '$($last.RecipientAddress)' -EndDate '$($last.Received.ToString('o'))'"
        $rows = $rows[0..($size - 1)]
    }
    foreach ($row in $rows) { $row | Select-Object -Property MessageTraceId, MessageId, Received, SenderAddress, RecipientAddress, Subject, Status, FromIP, ToIP, Size }
}

$script:Handlers['Get-MessageTraceDetailV2'] = {
    param($call)
    $given = $call.Given
    Assert-StandInRate -Tenant $call.Tenant
    [void](Get-StandInSpan -Given $given)
    foreach ($row in $call.Tenant.Traces) {
        if ($row.MessageTraceId -ne $given['MessageTraceId'] -or $row.RecipientAddress -ne $given['RecipientAddress']) { continue }
        foreach ($one in $row.Event) {
            [pscustomobject]@{
                MessageId = $row.MessageId; MessageTraceId = $row.MessageTraceId; Date = $row.Received; Event = $one.Event; Action = ''
                Detail = $one.Detail; Data = "<root><MEP Name=`"ServerHostName`" String=`"standin`"/></root>"
            }
        }
    }
}
